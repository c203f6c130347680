"""What was evaluated: the model and the dataset, as `report.json` describes them (see `cxr.evaluation.results`)."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from cxr.common.names import PNEUMONIA


class ReportModel(BaseModel):
    """Base of everything in `report.json`: immutable, no unknown fields, no NaN and no infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class WholeReport(ReportModel):
    """Base of all that stands in one `report.json`."""

    def to_json(self) -> str:
        """The text of `report.json`; settings stand under the keys of `params.yaml`."""
        return self.model_dump_json(by_alias=True, indent=2) + "\n"

    @classmethod
    def json_schema(cls) -> dict[str, Any]:
        """The JSON schema of `report.json`, as kept in `docs/`."""
        return {"$schema": "https://json-schema.org/draft/2020-12/schema", **cls.model_json_schema()}


class InputFacts(ReportModel):
    """Preprocessing of the network's input, as `cxr.imaging.preprocess.InputSpec`."""

    size: int = Field(description="Side of the square input, pixels.")
    resize: int = Field(description="Length of the shorter side before the centre crop, pixels.")
    interpolation: str = Field(description="Resampling filter.")
    resize_mode: str = Field(description="`crop`, `squash` or `pad`.")
    mean: tuple[float, float, float] = Field(description="Mean by channel, of pixel values scaled to 0..1.")
    std: tuple[float, float, float] = Field(description="Standard deviation by channel, of the same values.")


class TrainingFacts(ReportModel):
    """Where the weights come from; null where a bundle does not say."""

    model_config = ConfigDict(extra="ignore")
    step: str | None = Field(default=None, description="Step that wrote the bundle: `train`, `finetune` or `ensemble`.")
    run_id: str | None = Field(default=None, description="MLflow run of that step.")
    manifest_digest: str | None = Field(default=None, description="SHA-256 of the manifest it was trained on.")
    metric: str | None = Field(
        default=None,
        description="Class name of the validation metric; after the word `robust` if its mean over changed images.",
    )
    epoch: int | None = Field(
        default=None,
        description="Epoch of the weights; 0 for those that training began with; null for an ensemble.",
    )
    val_metric: float | None = Field(default=None, description="Validation metric that chose the epoch.")
    val_metric_clean: float | None = Field(
        default=None, description="The metric of unchanged validation images, if a robust one chose the epoch."
    )
    val_loss: float | None = Field(default=None, description="Validation loss.")
    members: list[str] | None = Field(default=None, description="MLflow runs of the members of an ensemble.")
    members_step: str | None = Field(
        default=None, description="Step of these runs, `train` or `finetune`; null where they differ."
    )
    folds: int | None = Field(
        default=None, description="Number of folds, for an ensemble of the folds of a cross-validation."
    )
    out_of_fold_sha256: str | None = Field(default=None, description="SHA-256 of the answers of such members.")


class ModelFacts(ReportModel):
    """The evaluated model."""

    name: str = Field(description="Architecture.")
    classes: list[str] = Field(description="Class names in the order of the logits; the first is the negative one.")
    finding: str = Field(default=PNEUMONIA, description="What all classes but the first have in common.")
    input: InputFacts
    parameters: int = Field(description="Number of parameters.")
    members: int = Field(description="Number of networks in the ensemble; 0 for a single network.")
    views: int = Field(default=1, description="Views of an image whose logits are averaged for its answer.")
    temperature: float = Field(description="Logits are divided by it before the softmax.")
    operating_points: dict[str, float] = Field(description="Threshold on the probability of the finding by name.")
    facts: TrainingFacts
    digest: str = Field(description="SHA-256 of all that decides the answers of the bundle.")


class SourceFacts(ReportModel):
    """Where the images come from."""

    kind: str = Field(description="`folder`, `zip`, `http`, `mendeley` or `sample`.")
    address: str = Field(description="Folder, file or URL.")
    sha256: str | None = Field(default=None, description="SHA-256 of the archive; null for folders.")
    synthetic: bool = Field(default=False, description="Whether the images are generated phantoms.")
    citation: str | None = Field(default=None, description="Citation of a published dataset.")
    labels: str | None = Field(default=None, description="Table of labels; null: folder and file names have them.")
    left_out: dict[str, int] = Field(
        default_factory=dict, description="Number of rows of the table that stand for no image, by reason."
    )


class SplitCount(ReportModel):
    """Size of one class in one split."""

    split: str = Field(description="`train`, `val` or `test`.")
    label: str = Field(description="Class.")
    images: int
    patients: int


class Characteristic(ReportModel):
    """What a table says of the images of one split."""

    name: str = Field(description="`age`, `sex`, `view`, `site` or `scanner`.")
    split: str = Field(description="`train`, `val` or `test`.")
    text: str = Field(description="Median and quartiles of the ages in years, or shares of the other values.")


class DuplicateCounts(ReportModel):
    """Counts of groups of duplicates."""

    groups: int = Field(description="Number of groups; near duplicates are counted in pairs.")
    by_split: dict[str, int] = Field(description="Number of groups by the splits they lie in, e.g. `train-test`.")
    across_patients: int = Field(description="Number of groups with more than one patient.")
    across_splits: int = Field(description="Number of groups in more than one split.")


class ListedImage(ReportModel):
    """An image in a group of duplicates."""

    path: str
    split: str
    patient: str


class DroppedImage(ReportModel):
    """An image dropped because it would leak between splits."""

    path: str
    split: str
    why: str = Field(description="The reason.")


class LeakReport(ReportModel):
    """Duplicates and patients across splits."""

    near_duplicate_bits: int = Field(description="Most bits in which the perceptual hashes of near duplicates differ.")
    patients_in_two_splits: list[str] = Field(description="Patients with images in two splits of the final manifest.")
    exact: DuplicateCounts = Field(description="Images with the same pixels.")
    near: DuplicateCounts = Field(description="Pairs of images that look the same.")
    dropped: list[DroppedImage]
    exact_groups: list[list[ListedImage]] = Field(description="The groups counted in `exact`, 200 at most.")
    near_pairs: list[list[ListedImage]] = Field(description="The pairs counted in `near`, 200 at most.")


class UnreadableFile(ReportModel):
    """A file that could not be decoded."""

    path: str
    reason: str


class DataFacts(ReportModel):
    """The dataset and its split."""

    source: SourceFacts
    licence: str = Field(description="Licence of the images.")
    named_as_published: bool = Field(
        default=False, description="Whether nearly all files have names of the Kermany dataset."
    )
    digest: str = Field(description="SHA-256 of the manifest.")
    counts: list[SplitCount]
    characteristics: list[Characteristic] = Field(
        default_factory=list, description="What is known of the patients and images; empty without a table of labels."
    )
    leaks: LeakReport
    unreadable: list[UnreadableFile]
    not_taken: int = Field(description="Number of readable images left out by `data.subset_size`.")


class SeenImages(ReportModel):
    """What a model of another split has seen of this one, in its training or when it was chosen on validation."""

    words: str = Field(description="What was found, or why nothing could be, one line.")
    images: dict[str, int] | None = Field(default=None, description="Number of images by split, `val` and `test`.")
    reasons: dict[str, int] | None = Field(default=None, description="Number of these images by the reason.")
    patients: int | None = Field(default=None, description="Number of their patients.")

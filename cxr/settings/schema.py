"""The schema of `params.yaml`: types and ranges of all keys. Units and reasons are in the comments of that file.

`cxr.settings.load` reads the file and checks it against this schema.
"""

import re
from typing import Annotated, Any, ClassVar, Final, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from cxr.settings import agreement
from cxr.settings.augment import AugmentSettings, StageSettings
from cxr.settings.classes import check_classes, check_finding, check_name, class_names
from cxr.settings.labels import ColumnSettings, Filter, Mapping, Pattern, Tables, Text
from cxr.settings.monitoring import MonitorSettings
from cxr.settings.places import DataPath, is_remote, local
from cxr.settings.search import SearchSettings
from cxr.settings.section import Positive, ScoreLimits, Section, Unit
from cxr.settings.serving import ServingSettings

ALLOWED_PACKAGES = ("torch.", "torchvision.", "torchmetrics.", "cxr.training.losses.")
TARGET_KEY: Final = "_target_"
# Old names of renamed settings and their new names, for the error message.
RENAMED = {
    "model.fit": "model.resize_mode",
    "serving.far_share": "serving.ood_share",
    "serving.fit_images": "serving.ood_images",
    "registry.gate.minimum.auc_pneumonia": "registry.gate.minimum.auc_finding",
}
# Settings that are gone, and what to do instead.
REPLACED = {"serving.abstain": "the band is chosen on validation now; set serving.refer_share or serving.risk"}

Share = Annotated[float, Field(gt=0, lt=1)]
Workers = Literal["auto"] | Annotated[int, Field(ge=0)]


class Target(BaseModel):
    """A class, given by its full name (`_target_`), and the keyword arguments to build it with."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True, populate_by_name=True)
    target: str = Field(alias=TARGET_KEY)

    @field_validator("target")
    @classmethod
    def _check_package(cls, name: str) -> str:
        if not name.startswith(ALLOWED_PACKAGES) or not re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", name):
            raise ValueError(f"expected a class of {', '.join(package + '*' for package in ALLOWED_PACKAGES)}")
        return name

    @property
    def arguments(self) -> dict[str, Any]:
        """The keyword arguments."""
        return dict(self.model_extra or {})


class DataSettings(Section):
    """Section `data`: the dataset, its splits and its checks."""

    path: DataPath
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None
    cache_dir: Annotated[str, local("data.cache_dir")] | None
    classes: int | list[str]
    finding: str
    val_size: Annotated[float, Field(ge=0, lt=1)]
    test_size: Share
    folds: Annotated[int, Field(ge=2, le=20)] | None
    fold: Annotated[int, Field(ge=0)]
    subset_size: Positive | None
    max_unreadable: float = Field(ge=0, lt=1)
    near_duplicate_bits: int = Field(ge=0, le=16)
    engine: Literal["local", "spark"]
    workers: Workers
    sample_images: int = Field(ge=30, le=5000)
    recipe: Text | None
    labels: Tables | None
    columns: ColumnSettings
    patient_pattern: Pattern | None
    separator: Text | None
    mapping: Mapping | None
    filters: dict[Text, Filter]

    @model_validator(mode="after")
    def _check_columns(self):
        if self.labels is not None and (self.columns.path is None or self.columns.label is None):
            raise ValueError("labels from a table need its columns: expected data.columns.path and data.columns.label")
        if self.columns.split is not None and isinstance(self.labels, dict):
            raise ValueError("tables by split and data.columns.split are both given; give one of them")
        return self

    @model_validator(mode="after")
    def _check_engine(self):
        if self.engine == "spark" and is_remote(self.path):
            raise ValueError(f"engine=spark reads no URLs, got {self.path}; leave it out: many threads read from there")
        return self

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes in the order of the logits; the first is the negative one."""
        return class_names(self.classes)

    @field_validator("classes", mode="before")
    @classmethod
    def _check_classes(cls, classes: Any) -> Any:
        check_classes(classes)
        return classes

    @field_validator("finding", mode="before")
    @classmethod
    def _check_finding(cls, finding: Any) -> Any:
        check_name(finding)
        return finding

    @model_validator(mode="after")
    def _check_agreement(self):
        check_finding(self.finding, self.classes)
        return self

    @model_validator(mode="after")
    def _check_training_share(self):
        if self.val_size + self.test_size >= 0.9:
            raise ValueError("val_size and test_size together must leave at least 0.1 for training")
        return self

    @model_validator(mode="after")
    def _check_fold(self):
        if self.folds is None and self.fold:
            raise ValueError(f"fold {self.fold} is given without folds; expected the number of folds as well")
        if self.folds is not None and self.fold >= self.folds:
            raise ValueError(f"fold {self.fold} of {self.folds} folds: expected a fold from 0 to {self.folds - 1}")
        return self


class ModelSettings(Section):
    """Section `model`: the backbone, its pretrained weights and its input."""

    name: str = Field(pattern=r"^(timm/[a-z0-9_]+(\.[a-z0-9_]+)?|[a-z0-9_]+)$")
    weights: str = Field(min_length=1)
    input_size: Annotated[int, Field(ge=16, le=2048)] | None
    input_range: Annotated[list[float], Field(min_length=2, max_length=2)] | None
    resize_mode: Literal["crop", "squash", "pad"]

    @model_validator(mode="after")
    def _check_order(self):
        if self.input_range is not None and self.input_range[0] >= self.input_range[1]:
            raise ValueError(f"input_range {self.input_range}: expected black first, then a larger number for white")
        return self


class TrainingSettings(Section):
    """Section `train`: a new head on the frozen backbone."""

    section: ClassVar[str] = "train"  # its name, for messages
    epochs: Positive
    batch_size: Positive
    patience: Positive
    min_delta: float = Field(ge=0)
    checkpoint_interval: Positive
    class_weights: Literal["balanced", "none"]
    sampler: Literal["shuffled", "balanced"]
    batch_norm: Literal["frozen", "trained"]
    dropout: Annotated[float, Field(ge=0, lt=1)] | None
    workers: Workers
    compile: Literal["auto"] | bool
    loss: Target
    optimizer: Target
    layer_decay: float = Field(gt=0, le=1)
    decay_norms: bool
    clip_norm: Annotated[float, Field(gt=0)] | None
    scheduler: Target | None
    scheduler_step: Literal["epoch", "batch"]
    warmup: float = Field(ge=0)
    ema: float = Field(ge=0, lt=1)
    metric: Target
    select: Literal["clean", "robust"]
    select_images: Positive | None
    stages: list[StageSettings]
    augment: AugmentSettings

    @property
    def metric_name(self) -> str:
        """Name of the validation metric that chooses the epoch, for logs, figures and the facts of a bundle."""
        name = self.metric.target.rpartition(".")[2]
        return name if self.select == "clean" else f"robust {name}"

    @model_validator(mode="after")
    def _check_stages(self):
        total = sum(stage.share for stage in self.stages)
        if self.stages and abs(total - 1) > 1e-6:
            raise ValueError(f"the shares of the stages add up to {total:g}, expected 1")
        if len(self.stages) > self.epochs:
            raise ValueError(f"{len(self.stages)} stages need at least as many epochs, got {self.epochs}")
        return self

    @model_validator(mode="after")
    def _check_parts(self):
        agreement.check_classes(self)
        agreement.check_rates(self)
        return self


class FinetuneSettings(TrainingSettings):
    """Section `finetune`: further training of the head and of the last feature blocks."""

    section: ClassVar[str] = "finetune"
    unfreeze: Literal["all"] | Annotated[int, Field(ge=0)]


class CalibrationSettings(Section):
    """Section `calibration`: temperature and operating points, from validation."""

    temperature: Literal["fitted", "none"]
    min_sensitivity: Share


class EvaluateSettings(Section):
    """Section `evaluate`: scores and figures on the test split."""

    batch_size: Positive
    views: int = Field(ge=1, le=6)
    metric: Target
    prevalences: list[Share]
    robustness: bool
    robustness_images: Positive | None
    map_images: int = Field(ge=0, le=100)
    gallery: int = Field(ge=0, le=60)


class MinimumSettings(ScoreLimits):
    """Section `registry.gate.minimum`: lowest scores with which a version can become champion; None: no limit."""


class GateSettings(Section):
    """Section `registry.gate`: conditions under which a version becomes champion."""

    metric: Literal["accuracy", "balanced_accuracy", "macro_f1", "auc_finding", "sensitivity", "specificity"]
    margin: Unit
    least_images: Positive
    minimum: MinimumSettings

    @field_validator("metric", mode="before")
    @classmethod
    def _check_name(cls, metric: Any) -> Any:
        if metric == "auc_pneumonia":
            raise ValueError("auc_pneumonia was renamed; use auc_finding")
        return metric


class RegistrySettings(Section):
    """Section `registry`: the registered model."""

    name: str = Field(pattern=r"^[\w .-]+$")
    register_model: bool = Field(alias="register")
    gate: GateSettings


class CacheSettings(Section):
    """Section `cache`: the disk cache of rasters and features."""

    dir: Annotated[str, local("cache.dir")] | None  # arrays in it are mapped into memory
    max_gb: float = Field(ge=0)
    decoded: bool
    features: bool
    views: Annotated[int, Field(ge=0, le=100)]


class Settings(Section):
    """All settings of a run. Attributes are named like the keys of `params.yaml`."""

    seed: int = Field(ge=0, lt=2**32)
    device: Literal["auto", "cpu", "cuda", "mps"]
    precision: Literal["auto", "float32", "bfloat16"]
    deterministic: bool
    log_dir: Annotated[str, Field(min_length=1), local("log_dir")]
    data: DataSettings
    model: ModelSettings
    train: TrainingSettings
    finetune: FinetuneSettings
    cache: CacheSettings
    calibration: CalibrationSettings
    evaluate: EvaluateSettings
    registry: RegistrySettings
    serving: ServingSettings
    monitor: MonitorSettings
    search: SearchSettings

    @model_validator(mode="after")
    def _check_images(self):
        agreement.check_images(self.train, self.cache, 0)
        agreement.check_images(self.finetune, self.cache, self.finetune.unfreeze)
        return self

    def to_dict(self) -> dict[str, Any]:
        """Return plain values under the keys of `params.yaml`."""
        return self.model_dump(by_alias=True)

    def to_yaml(self) -> str:
        """Return the settings as YAML, which `cxr.settings.load` reads back."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True)

"""`validate` as a user starts it: the registered model, as it is served, on sets that lie in other folders."""

import json
import shutil
import weakref
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cxr.common.hardware import cores
from cxr.datasets import overlap, phantom
from cxr.datasets.manifest import Manifest
from cxr.evaluation.results import EvaluationReport
from cxr.evaluation.scores import Sample, estimates
from cxr.evaluation.validation_results import ValidationReport
from cxr.imaging import preprocess
from cxr.serving.service import BATCH, Service
from steps.registry import validations
from steps.registry.model_files import service_folder
from tests.cxr.imaging.test_dicom import file_of as dicom_file
from tests.helpers import png
from tests.steps.conftest import PLAIN, parameters

NAME = "cxr-pneumonia"


@pytest.fixture(scope="module")
def split(workflow) -> Manifest:
    return Manifest.load(workflow.artifact(workflow.first("prepare_split"), "split"))


def laid_out(folder: Path, split: Manifest, kind: str = "") -> Path:
    """The images of a split as a binary set: other names, folders NORMAL and PNEUMONIA; in another format if asked."""
    for number, (file, label) in enumerate(zip(split.files(), split.rows["label"], strict=True)):
        target = folder / ("NORMAL" if label == "normal" else "PNEUMONIA")
        target.mkdir(parents=True, exist_ok=True)
        name = f"site-{split.rows['split'].iat[number]}-{number:03}"
        if kind:
            with Image.open(file) as image:
                image.save(target / f"{name}.{kind}")
        else:
            shutil.copyfile(file, target / f"{name}{file.suffix}")
    return folder


@pytest.fixture(scope="module")
def test_set(split, tmp_path_factory) -> Path:
    return laid_out(tmp_path_factory.mktemp("set"), split.split("test"))


def newest(workflow) -> tuple[mlflow.entities.Run, ValidationReport]:
    run = workflow.runs("validate")[0]
    text = workflow.artifact(run, "validation/report.json").read_text()
    return run, ValidationReport.model_validate_json(text)


@pytest.fixture
def validate(workflow, in_process):
    """Function that validates and returns the run and its report; if `plain`, without what the test is not about."""

    def run(folder: Path | str, plain: bool = True, **given) -> tuple[mlflow.entities.Run, ValidationReport]:
        given = {**(parameters(*PLAIN) if plain else {}), **given}
        assert in_process("validate", data_path=folder, data__classes=2, **given) == 0
        return newest(workflow)

    return run


def versions(workflow) -> list[tuple[str, list[str]]]:
    return [(v.version, v.aliases) for v in workflow.client.search_model_versions(f"name='{NAME}'")]


@pytest.fixture(scope="module")
def of_own_test_split(workflow, test_set):
    """The run and the report of a whole validation on the test split of the champion, which changes no version."""
    before = versions(workflow)
    done = workflow.project("validate", f"data_path={test_set}", "data.classes=2")
    assert done.returncode == 0, done.stderr
    assert versions(workflow) == before
    return newest(workflow)


def champion(workflow):
    return workflow.client.get_model_version_by_alias(NAME, "champion")


def test_on_its_own_test_split_the_figures_are_those_of_evaluate(workflow, of_own_test_split):
    run, report = of_own_test_split
    version = champion(workflow)
    evaluated = workflow.client.get_run(version.tags["cxr.evaluate_run_id"])
    rows = json.loads(workflow.artifact(evaluated, "evaluation/predictions.json").read_text())
    normal = np.array([row["probabilities"]["normal"] for row in rows])
    labels = np.array([int(row["truth"] != "normal") for row in rows])
    sample = Sample.from_labels(labels, np.arange(len(rows)).astype(str), ("normal", "pneumonia"), 0)
    expected = estimates(sample, np.stack([normal, 1 - normal], 1))
    for name, score in report.all.scores.items():
        assert score.value == pytest.approx(expected[name].value, abs=1e-5), name
    assert report.data.mapping == {"normal": "normal", "bacteria": "pneumonia", "virus": "pneumonia"}
    assert report.data.overlap.own_test == report.all.images == len(rows)
    for name, row in report.internal.scores.items():
        if not name.startswith("calibration_"):  # of few images, often undefined
            assert row.internal.value == pytest.approx(row.external.value, abs=1e-5), name
    assert run.data.tags["cxr.validated_version"] == f"{NAME}/{version.version}"
    assert run.data.tags["cxr.evaluate_run_id"] == evaluated.info.run_id and run.data.tags["cxr.step_key"]


def test_served_equals_validated_and_the_result_stands_on_run_logged_model_and_version(
    workflow, of_own_test_split, test_set, monkeypatch, tmp_path
):
    workflow.enter(monkeypatch)
    run, report = of_own_test_split
    version = champion(workflow)
    table = pd.read_parquet(workflow.artifact(run, "validation/predictions.parquet"))
    service = Service(service_folder(f"models:/{NAME}/{version.version}", tmp_path), threads=cores())
    answers = pd.concat([service.answer([(test_set / path).read_bytes()]) for path in table["path"]], ignore_index=True)
    assert list(table["label"]) == list(answers["label"]) and list(table["status"]) == list(answers["status"])
    for name in ("normal", "bacteria", "virus"):
        np.testing.assert_allclose(
            table[f"probability_{name}"], answers[f"probability_{name}"].astype(float), atol=1e-6
        )
    assert report.model.operating_points == service.operating_points
    assert report.answered.images == (answers["status"] == "ok").sum()
    assert sum(step.images for step in report.data.flow if step.what.startswith("of these")) == report.all.images
    far = (table["distance"] > report.distances.limit).mean()
    assert report.distances.beyond == pytest.approx(far) and len(report.distances.validation) == 201
    auc = report.all.scores["auc_pneumonia"].value
    assert run.data.metrics["external_auc_pneumonia"] == pytest.approx(auc)
    assert [(read.dataset.digest, read.tags[0].value) for read in run.inputs.dataset_inputs] == [
        (report.data.digest[:36], "validation")
    ]
    logged = workflow.client.get_logged_model(version.source.removeprefix("models:/"))
    assert (run.info.run_id, auc) in [(m.run_id, m.value) for m in logged.metrics if m.key == "external_auc_pneumonia"]
    # What becomes of the answers without lungs, and of the maps without what was learnt, as `evaluate` says it.
    text = workflow.artifact(workflow.client.get_run(version.tags["cxr.evaluate_run_id"]), "evaluation/report.json")
    evaluated = EvaluationReport.model_validate_json(text.read_text())
    assert report.shortcut_images == evaluated.robustness.images == report.all.images
    for ours, theirs in zip(report.shortcuts, evaluated.robustness.shortcuts, strict=True):
        auc = theirs.scores["auc_pneumonia"].value
        assert ours.scores["auc_pneumonia"].value == pytest.approx(auc, abs=1e-4) and ours.images == theirs.images
    assert len(report.map_sanity.cascade) == len(evaluated.map_sanity.cascade)
    entry = json.loads(version.tags[validations.TAG])[-1]
    assert entry["run_id"] == run.info.run_id and entry["images"] == report.all.images
    page = workflow.artifact(run, "validation/report.html").read_text()
    assert "the border alone, all inside it black" in page and "Coverage: in a simulation" in page
    assert "drawn phantoms" in page and "http" not in page.partition("<body>")[2].replace("http://www.w3.org", "")


def test_images_of_its_own_training_are_left_out_and_counted(workflow, validate, split, test_set, tmp_path):
    mixed = Path(shutil.copytree(test_set, tmp_path / "set"))
    laid_out(mixed, split.split("train"))
    laid_out(mixed, split.split("val"), kind="jpeg")  # other pixels, the same look
    run, report = validate(mixed)
    own = sum((split.rows["split"] == name).sum() for name in ("train", "val"))
    assert report.all.images == (split.rows["split"] == "test").sum()
    assert report.data.overlap.compared == own == sum(report.data.overlap.reasons.values())
    assert report.data.overlap.reasons["near duplicate"] == (split.rows["split"] == "val").sum()
    table = pd.read_parquet(workflow.artifact(run, "validation/predictions.parquet"))
    assert (table["left_out"] != "").sum() == own and table.loc[table["left_out"] != "", "status"].isna().all()


def test_without_fingerprints_the_report_says_that_it_could_not_be_checked(workflow, validate, test_set, monkeypatch):
    monkeypatch.setattr(overlap, "FILE", "of-a-later-version.parquet")
    run, report = validate(test_set)
    assert not report.data.overlap.checked and report.all.images == len(list(test_set.rglob("*.jpeg")))
    page = workflow.artifact(run, "validation/report.html").read_text()
    assert page.count("ould not be checked whether the model was trained on images of this set") >= 1


def test_a_set_of_one_class_gives_the_scores_that_it_defines(workflow, validate, split, tmp_path):
    ill = split.split("test")
    one = Manifest(ill.rows[ill.rows["label"] != "normal"].reset_index(drop=True), ill.root, ill.classes)
    run, report = validate(laid_out(tmp_path / "set", one), plain=False)
    assert report.all.scores["sensitivity"].value is not None and report.all.scores["auc_pneumonia"].value is None
    assert "external_auc_pneumonia" not in run.data.metrics
    assert json.loads(champion(workflow).tags[validations.TAG])[-1]["auc"] is None
    page = workflow.artifact(run, "validation/report.html").read_text()
    assert "The set has no images of normal: scores that need them are undefined" in page


def test_no_more_images_are_held_than_a_few_batches(workflow, validate, tmp_path, monkeypatch):
    """However many there are: what is kept of an image is its row. All phantoms below lie far from training."""
    rng, folder = np.random.default_rng(0), tmp_path / "set/NORMAL"
    folder.mkdir(parents=True)
    for number in range(300):
        Image.fromarray(rng.integers(0, 256, (64, 64), np.uint8)).save(folder / f"{number}.png")
    held, most, to_raster = 0, 0, preprocess.InputSpec.to_raster

    def freed() -> None:
        nonlocal held
        held -= 1

    def counted(self, *image):
        nonlocal held, most
        raster = to_raster(self, *image)
        weakref.finalize(raster, freed)
        held += 1
        most = max(most, held)
        return raster

    monkeypatch.setattr(preprocess.InputSpec, "to_raster", counted)
    _, report = validate(folder.parent, plain=False, data__workers=1, evaluate__robustness_images=60)
    assert report.all.images == 300 and report.distances.beyond > 0.5
    assert 0 < most <= 4 * BATCH


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "data_path is not given; add -P data_path=FOLDER"),
        ({"profile": "cpu"}, "data_path is not given; add -P data_path=FOLDER"),
        ({"data_path": "EMPTY"}, "holds no X-rays in a known layout"),
        ({"data_path": "EMPTY.none"}, "does not exist"),
        ({"data_path": "SET", "model_uri": "models:/none@champion"}, "run `mlflow run . -e main` first"),
        ({"data_path": "SET", "model_uri": "models:/cxr-pneumonia/99"}, "not in the registry"),
        ({"data_path": "SET", "registry__name": "none"}, "model_uri=models:/none@champion: not in the registry"),
        ({"data_path": "SET"}, "neither folder nor name says bacteria or virus"),
        ({"data_path": "SET", "serving__refer_share": "0.1"}, "setting serving.refer_share cannot be given"),
        ({"data_path": "SET", "evaluate__views": 2}, "setting evaluate.views cannot be given"),
        ({"data_path": "SET", "data__subset_size": 5}, "setting data.subset_size cannot be given"),
        ({"data_path": "OWN"}, "images stand in the training of version 1; give images that it has not seen"),
    ],
)
def test_what_cannot_be_validated_is_one_line(refused, split, test_set, tmp_path, given, words):
    (tmp_path / "empty").mkdir()
    if "OWN" in given.values():
        laid_out(tmp_path / "own", split.split("train"))
        given = given | {"data__classes": 2}
    for name, place in {"EMPTY": tmp_path / "empty", "SET": test_set, "OWN": tmp_path / "own"}.items():
        given = {key: str(value).replace(name, str(place)) for key, value in given.items()}
    assert words in refused("validate", **given)


def test_the_newest_validation_fills_the_checklist_of_the_next_report(workflow, validate, in_process, tmp_path):
    phantom.draw(tmp_path / "elsewhere", 30, seed=7)
    run, report = validate(tmp_path / "elsewhere")
    assert report.data.overlap.checked and report.data.overlap.own_test == 0
    validate("sample", data__sample_images=30, seed=8)  # known to be phantoms: no external validation
    finetuned = workflow.first("finetune").info.run_id
    plain = parameters(*PLAIN)
    assert in_process("evaluate", run_id=finetuned, registry__gate__minimum__auc_finding="null", **plain) == 0
    text = workflow.artifact(workflow.runs("evaluate")[0], "evaluation/report.json").read_text()
    evaluated = EvaluationReport.model_validate_json(text)
    assert evaluated.external.run_id == run.info.run_id and evaluated.external.images == report.all.images
    assert evaluated.external.auc.value == pytest.approx(report.all.scores["auc_pneumonia"].value)
    item = next(item for item in evaluated.checklist if item.claim == "33")
    assert item.status == "filled" and f"elsewhere: {report.all.images} images" in item.answer


def test_a_table_of_two_sites_in_two_formats_gives_the_same_figures(
    workflow, validate, split, tmp_path, tmp_path_factory
):
    """The test split as a hospital would hand it over: PNG at one site, DICOM at the other, the same file names."""
    test, rows = split.split("test"), []
    for number, (file, label) in enumerate(zip(test.files(), test.rows["label"], strict=True)):
        site, name = ("A", f"{number // 2:03}.png") if number % 2 else ("B", f"{number // 2:03}.dcm")
        (tmp_path / site).mkdir(exist_ok=True)
        with Image.open(file) as image:
            grey = np.asarray(image.convert("L"))
        if site == "A":
            Image.fromarray(grey).save(tmp_path / site / name)
        else:
            shown_as_stored = {"WindowCenter": 128, "WindowWidth": 256, "PatientID": f"child {number}"}
            (tmp_path / site / name).write_bytes(dicom_file(grey, bits=8, **shown_as_stored))
        rows.append([site, name, "clear" if label == "normal" else "opacity", f"child {number}"])
    table = pd.DataFrame([*rows, ["A", "none.png", "effusion", "x"]], columns=["site", "file", "seen", "child"])
    table.to_csv(tmp_path / "labels.csv", index=False)
    columns = {"path": "{site}/{file}", "label": "seen", "patient": "child", "site": "site"}
    given = {f"data__columns__{name}": value for name, value in columns.items()}
    mapping = "{clear: normal, opacity: pneumonia}"
    run, report = validate(tmp_path, data__labels="labels.csv", data__mapping=mapping, **given)
    # Not JPEG, which is decoded at a reduced scale.
    _, expected = validate(laid_out(tmp_path_factory.mktemp("png"), test, kind="png"))
    for name, score in report.all.scores.items():
        assert score.value == pytest.approx(expected.all.scores[name].value, abs=1e-6), name
    assert report.data.flow[0].images == 1 and "left out" in report.data.flow[0].what
    predictions = pd.read_parquet(workflow.artifact(run, "validation/predictions.parquet"))
    assert set(predictions["site"]) == {"A", "B"} and report.all.patients == len(rows) == report.all.images


def test_spark_scores_the_same(workflow, validate, test_set, tmp_path):
    pytest.importorskip("pyspark", reason="an extra: pip install -r requirements-spark.txt")
    folder = Path(shutil.copytree(test_set, tmp_path / "set"))
    (folder / "NORMAL/blank.png").write_bytes(png(np.zeros((64, 64), np.uint8)))  # which the model refers
    tables, reports = [], []
    for engine in ("local", "spark"):
        run, report = validate(folder, engine=engine)
        tables.append(pd.read_parquet(workflow.artifact(run, "validation/predictions.parquet")))
        reports.append(report)
    pd.testing.assert_frame_equal(*tables, atol=1e-5)
    assert reports[0].data.digest == reports[1].data.digest
    for name, score in reports[0].all.scores.items():
        assert reports[1].all.scores[name].value == pytest.approx(score.value, abs=1e-5), name

"""`monitor` as a user starts it: answers of `predict` against the reference of the champion."""

import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest

from cxr.datasets.manifest import Manifest
from cxr.errors import CxrError
from cxr.monitoring import reference as references
from cxr.monitoring.results import MonitoringReport
from steps.registry import monitored
from steps.registry.model_files import service_folder
from tests.helpers import CLASSES

NAME = "cxr-pneumonia"
MONDAY = pd.Timestamp("2026-11-02T09:00Z")
# The network of the workflow is hardly trained and its reference is of a few images: the tests are about the step.
EASY = {
    "monitor__window_images": 5,
    "monitor__limits__class_share": "null",
    "monitor__limits__scores__auc_finding": "null",
}
EASY |= {"monitor__limits__scores__balanced_accuracy": "null"}


@pytest.fixture(scope="module")
def split(workflow) -> Manifest:
    return Manifest.load(workflow.artifact(workflow.first("prepare_split"), "split"))


@pytest.fixture(scope="module")
def predicted(workflow, split, tmp_path_factory):
    """What `predict` writes for all images of the workflow but those of training, three times over on three days."""
    folder = tmp_path_factory.mktemp("monitor")
    rest = [file for file, part in zip(split.files(), split.rows["split"], strict=True) if part != "train"]
    (folder / "list.txt").write_text("\n".join(map(str, rest)))
    process = workflow.project("predict", f"input={folder / 'list.txt'}", f"output={folder / 'once.parquet'}")
    assert process.returncode == 0, process.stderr
    once = pd.read_parquet(folder / "once.parquet")
    days = [once.assign(time=pd.Timestamp(f"2026-11-{day:02}T09:00Z")) for day in (2, 3, 10)]
    few = once.head(3).assign(time=pd.Timestamp("2026-11-12T09:00Z"))
    table = pd.concat([*days, few], ignore_index=True)
    table.to_parquet(folder / "preds.parquet", index=False)
    return folder / "preds.parquet"


@pytest.fixture
def monitor(workflow, in_process):
    """Function that monitors and returns the exit status, the run and its report."""

    def run(source, status=0, **given):
        code = in_process("monitor", input=source, **(EASY | given))
        made = workflow.runs("monitor", "FINISHED" if status == 0 else "FAILED")[0]
        assert code == status, made.data.tags.get("cxr.error")
        text = workflow.artifact(made, "monitoring/report.json").read_text()
        return made, MonitoringReport.model_validate_json(text)

    return run


def test_the_reference_has_the_validation_images_of_the_version(in_process, split, tmp_path):
    folder = service_folder(f"models:/{NAME}/1", tmp_path)
    reference = references.load(folder, "version 1")
    val = split.split("val")
    assert reference.images == len(val) and reference.classes == list(CLASSES) and not reference.out_of_fold
    assert reference.counts.sum(1).tolist() == [int((val.labels() == i).sum()) for i in range(3)]
    assert reference.columns["width"].quantiles == sorted(val.rows["width"].astype(float))
    service = json.loads((folder / "service.json").read_text())
    assert "reference.json" in service["sha256"]
    (folder / "reference.json").write_text("{}")
    with pytest.raises(CxrError, match="not the one that service"):
        references.load(folder, "version 1")
    service["sha256"].pop("reference.json")
    (folder / "service.json").write_text(json.dumps(service))
    with pytest.raises(CxrError, match="version 1 has no reference to hold answers against"):
        references.load(folder, "version 1")


def test_answers_by_day_with_a_report_metrics_and_a_tag(workflow, monitor, predicted):
    run, report = monitor(predicted)
    table = pd.read_parquet(predicted)
    assert report.input.answers == len(table) == report.whole.images and report.alarms == []
    assert [window.begin.date().isoformat() for window in report.windows] == [
        "2026-11-02", "2026-11-03", "2026-11-10", "2026-11-12"
    ]  # fmt: skip
    assert report.windows[3].images == 3 and report.windows[3].part is None  # a gap, and said so
    share = (table["status"] == "refer").mean()
    assert report.whole.referred["any"].share == pytest.approx(share) == run.data.metrics["referred_any"]
    history = workflow.client.get_metric_history(run.info.run_id, "window_psi_distance")
    assert [point.step for point in history] == [0, 1, 2]
    assert history[0].timestamp == report.windows[0].begin.timestamp() * 1000
    page = workflow.artifact(run, "monitoring/report.html").read_text()
    assert "Days with fewer than 5 images, not judged: 1 of 4" in page and "No truths were given" in page
    assert "http" not in page.partition("<body>")[2].replace("http://www.w3.org", "")
    entry = json.loads(workflow.client.get_model_version(NAME, "1").tags[monitored.TAG])[-1]
    assert entry["run_id"] == run.info.run_id and entry["answers"] == len(table) and entry["alarms"] == 0
    _, weeks = monitor(predicted, window="week", since="2026-11-03", until="2026-11-10")
    assert [window.begin.date().isoformat() for window in weeks.windows] == ["2026-11-02", "2026-11-09"]
    assert weeks.input.answers == 2 * (table["time"] == MONDAY).sum() and weeks.input.outside > 0


def test_passed_limits_fail_the_run_after_everything_is_logged(workflow, monitor, predicted, tmp_path, capfd):
    table = pd.read_parquet(predicted)
    table["brightness"] += 100
    table.to_parquet(tmp_path / "bright.parquet")
    run, report = monitor(tmp_path / "bright.parquet", status=1)
    assert any(line.startswith("all answers: brightness: ") for line in report.alarms)
    errors = [line for line in capfd.readouterr().err.splitlines() if "ERROR" in line]
    assert len(errors) == 1 and "monitor.limits are passed: all answers: brightness: " in errors[0]
    assert f"report.html of run {run.info.run_id}" in errors[0] and run.data.tags["cxr.error"] in errors[0]
    assert run.data.metrics["alarms"] == len(report.alarms)
    entry = json.loads(workflow.client.get_model_version(NAME, "1").tags[monitored.TAG])[-1]
    assert entry["alarms"] == len(report.alarms)
    off = {"monitor__limits__psi": "null", "monitor__limits__ks": "null"}
    assert monitor(tmp_path / "bright.parquet", **off)[1].alarms == []


def test_an_outage_of_a_day_or_of_all_days_is_told(workflow, monitor, predicted, tmp_path):
    table = pd.read_parquet(predicted)
    numbers = [name for name in table if name.startswith("probability_") or name in ("distance", "brightness")]
    for name, failed in (("day", table["time"] == MONDAY), ("all", table["time"].notna())):
        dark = table.astype({"width": float, "height": float})
        dark.loc[failed, ["status", "reasons"]] = ["error", "the file is empty (0 bytes)"]
        dark.loc[failed, [*numbers, "width", "height"]] = np.nan
        dark.to_parquet(tmp_path / f"{name}.parquet")
    run, report = monitor(tmp_path / "day.parquet", status=1)
    assert "day 2026-11-02: unreadable: 100.0%, at most" in " ".join(report.alarms)
    assert report.windows[0].part.images == 0 and report.windows[1].part.columns
    page = workflow.artifact(run, "monitoring/report.html").read_text()
    assert "Days of which fewer than 5 images could be read, judged by the share of unreadable ones alone: 1 of" in page
    assert "Days with fewer than 5 images, not judged: 1 of 4" in page and "too few images read" in page
    run, report = monitor(tmp_path / "all.parquet", status=1)
    assert report.whole.images == 0 and report.comparisons == 1 + 3
    assert [line.rpartition(": unreadable")[0] for line in report.alarms] == [
        "all answers", "day 2026-11-02", "day 2026-11-03", "day 2026-11-10"
    ]  # fmt: skip
    page = workflow.artifact(run, "monitoring/report.html").read_text()
    assert "Not compared: fewer than 5 images could be read" in page and run.data.metrics["referred_unreadable"] == 1
    off = {"monitor__limits__referred": "null"}
    run, report = monitor(tmp_path / "all.parquet", **off)
    page = workflow.artifact(run, "monitoring/report.html").read_text()
    assert "No limit is passed, but too few images could be read" in page and report.comparisons == 0


def test_truths_that_come_later_give_scores_by_window(workflow, monitor, predicted, split, tmp_path):
    rest = split.rows[split.rows["split"] != "train"].reset_index(drop=True)
    truth = pd.DataFrame({"path": rest["path"], "label": rest["label"], "patient": rest["patient"]})
    truth.loc[len(truth)] = ["elsewhere/none.png", "normal", "x"]
    truth.to_csv(tmp_path / "labels.csv", index=False)
    run, report = monitor(predicted, truth=tmp_path / "labels.csv")
    assert report.input.truths == len(rest) + 1 and report.input.unmatched == 1
    whole = report.whole.scores
    assert whole.images == report.input.answers and whole.patients == rest["patient"].nunique()
    table = pd.read_parquet(predicted)
    table = table[table["time"] == MONDAY]
    served = table[[f"probability_{name}" for name in CLASSES]].to_numpy()
    right = np.mean(np.array(CLASSES)[served.argmax(1)] == rest["label"].to_numpy())
    first = report.windows[0].part.scores.scores["accuracy"]
    assert first.value == pytest.approx(right) and first.low <= right <= first.high
    assert run.data.metrics["accuracy"] == pytest.approx(whole.scores["accuracy"].value)
    # Two classes, and the wrong way round, so that no interval reaches up to 1.
    two = truth.assign(label=np.where(truth["label"] == "normal", "pneumonia", "normal"))
    two.to_csv(tmp_path / "two.csv", index=False)
    limits = {"monitor__limits__scores__accuracy": 1.0, "monitor__limits__scores__auc_finding": 1.0}
    _, failed = monitor(predicted, status=1, truth=tmp_path / "two.csv", **limits)
    assert set(failed.whole.scores.by_class) == {"normal", "pneumonia"}
    assert any(re.match(r"all answers: accuracy: .*, at least 1", line) for line in failed.alarms)
    few = two[two["label"] == "normal"].head(3)
    few.to_csv(tmp_path / "few.csv", index=False)
    few_run, shown = monitor(predicted, truth=tmp_path / "few.csv", **limits)
    assert shown.whole.scores.scores["accuracy"].value is not None and shown.alarms == []
    page = workflow.artifact(few_run, "monitoring/report.html").read_text()
    patients = few["patient"].nunique()
    assert f"Of all answers, these are not: accuracy (patients with a truth: {patients}, fewer than 5)" in page


def test_a_folder_of_the_log_of_a_service_and_answers_of_other_versions(workflow, monitor, predicted, tmp_path):
    table = pd.read_parquet(predicted)
    requests = {"request_id": [f"r{number // 2}" for number in range(len(table))]}
    log = table.drop(columns=["path", "heatmap"]).assign(**requests, row=np.arange(len(table)) % 2)
    for day, rows in log.groupby(log["time"].dt.date):
        (tmp_path / "log" / str(day)).mkdir(parents=True)
        rows.to_parquet(tmp_path / "log" / str(day) / "090000-a-000001.parquet", index=False)
    other = log.head(4).assign(model_version="7", time=log["time"].head(4).dt.tz_convert("Europe/Berlin"))
    other.to_parquet(tmp_path / "log/other.parquet", index=False)
    (tmp_path / "log/.half.parquet").write_bytes(b"being written")
    truth = log[["request_id", "row"]].assign(label="normal")
    truth.to_csv(tmp_path / "labels.csv", index=False)
    _, report = monitor(tmp_path / "log", truth=tmp_path / "labels.csv")
    assert report.input.files == 5 and report.input.answers == len(log) and report.input.others == {"7": 4}
    assert report.whole.scores.images == len(log)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "input is not given; add -P input=preds.parquet"),
        ({"input": "FOLDER/none.parquet"}, "does not exist; give a file that predict wrote"),
        ({"input": "EMPTY"}, "no .parquet files below it"),
        ({"input": "TEXT"}, "not a Parquet file that can be read"),
        ({"input": "OLD"}, "lacks the columns distance, brightness, width and 2 more: it was written before"),
        ({"input": "NAIVE"}, "its column time has no time zone"),
        ({"input": "OTHER"}, "has answers of version 9, and none of version 1; name the version that answered"),
        ({"input": "PREDS", "since": "2026-12-01"}, "is in the time asked for; they are from 2026-11-02T09:00Z to"),
        ({"input": "PREDS", "since": "2026-11-02T09:00"}, "a time without a zone; add it, as in 2026-11-02T09:00Z"),
        ({"input": "PREDS", "since": "yesterday"}, "since=yesterday: expected a date or a time"),
        ({"input": "PREDS", "since": "2026-11-05", "until": "2026-11-03"}, "expected a since before until"),
        ({"input": "PREDS", "since": "2026-11-12"}, "3 images were answered in this time; fewer than"),
        ({"input": "PREDS", "window": "month"}, "window: expected one of day, week, got 'month'"),
        ({"input": "PREDS", "model_uri": "models:/none@champion"}, "run `mlflow run . -e main` first"),
        ({"input": "PREDS", "truth": "FOLDER/none.csv"}, "cannot be read (No such file or directory)"),
        ({"input": "PREDS", "truth": "STRANGE"}, "none of its 1 images is among the answers; its column path begins"),
        ({"input": "PREDS", "truth": "LABEL"}, "the label 'covid' is none of normal, bacteria, virus, pneumonia"),
        ({"input": "PREDS", "truth": "COLUMNS"}, "expected a column label and a column path, got file, label"),
        ({"input": "PREDS", "monitor__limits__psi": -1}, "setting monitor.limits.psi"),
    ],
)
def test_what_cannot_be_judged_is_one_line(refused, predicted, tmp_path, given, words):
    table = pd.read_parquet(predicted)
    late = ["distance", "brightness", "width", "height", "time"]
    table.drop(columns=late).to_parquet(tmp_path / "OLD")
    table.assign(time=table["time"].dt.tz_localize(None)).to_parquet(tmp_path / "NAIVE")
    table.assign(model_version="9").to_parquet(tmp_path / "OTHER")
    shutil.copy(predicted, tmp_path / "PREDS")
    (tmp_path / "TEXT").write_text("path,label\n")
    (tmp_path / "EMPTY").mkdir()
    (tmp_path / "STRANGE").write_text("path,label\nelsewhere/1.png,normal\n")
    (tmp_path / "LABEL").write_text("path,label\nx.png,covid\n")
    (tmp_path / "COLUMNS").write_text("file,label\nx.png,normal\n")
    places = {path.name: str(path) for path in tmp_path.iterdir()} | {
        "FOLDER/none.parquet": str(tmp_path / "x.parquet")
    }
    places["FOLDER/none.csv"] = str(tmp_path / "none.csv")
    assert words in refused("monitor", **{name: places.get(str(value), value) for name, value in given.items()})

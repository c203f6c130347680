"""An evaluation logs scores and a report that agree, compares with the champion, and lets the gate decide."""

import json
import re
import shutil
from pathlib import Path

import mlflow
import pandas as pd
import pytest

from cxr.datasets.folds import complete
from cxr.datasets.manifest import Manifest
from cxr.evaluation.calibration import fit_temperature
from cxr.evaluation.out_of_fold import FILE
from cxr.evaluation.results import EvaluationReport
from cxr.report import referral_words
from steps.registry import identity
from steps.runtime import runs
from tests.steps.conftest import PLAIN, SMALL, parameters


def report_of(workflow, run) -> EvaluationReport:
    return EvaluationReport.model_validate_json(workflow.artifact(run, "evaluation/report.json").read_text())


def test_report_scores_metrics_and_predictions_agree(workflow):
    run = workflow.first("evaluate")
    report = report_of(workflow, run)
    scores = json.loads(workflow.artifact(run, "evaluation/scores.json").read_text())
    assert {name: score.model_dump() for name, score in report.test.scores.items()} == scores
    for name in ("macro_f1", "auc_pneumonia", "sensitivity"):
        assert run.data.metrics[f"test_{name}"] == pytest.approx(scores[name]["value"])
    area = report.test.risk_coverage["classes"].area
    for name, value in (("aurc_classes", area.value), ("aurc_classes_low", area.low), ("aurc_classes_high", area.high)):
        assert run.data.metrics[f"test_{name}"] == pytest.approx(value)
    assert run.data.metrics["test_ece_high"] == pytest.approx(report.test.calibration.after.ece.high)
    assert len(report.robustness.shortcuts) == 3
    assert report.map_sanity.cascade[-1].randomised == "all weights"
    predictions = json.loads(workflow.artifact(run, "evaluation/predictions.json").read_text())
    right = sum(p["prediction"] == p["truth"] for p in predictions)
    assert scores["accuracy"]["value"] == pytest.approx(right / len(predictions))
    bundle = json.loads(workflow.artifact(workflow.first("finetune"), "bundle/config.json").read_text())
    assert report.model.temperature == bundle["temperature"] != 1
    assert [point.threshold for point in report.test.operating_points[1:]] == list(bundle["operating_points"].values())
    referred = report.served.referred["test"]
    assert referred.images == len(predictions) and 0 <= referred.share <= 1
    assert referred.answered.coverage.value == pytest.approx(1 - referred.share)
    assert "Referrals" in workflow.artifact(run, "evaluation/report.html").read_text()
    version = workflow.client.get_model_version("cxr-pneumonia", "1")
    assert version.description.startswith("# efficientnet_lite0")
    # The bands are those of the version, chosen on validation by the share in the settings.
    chosen, served = report.bands, json.loads(served_config(workflow).read_text())
    assert (chosen.rule, chosen.limit, chosen.images) == ("refer_share", 0.03, report.validation.images)
    assert served["bands"] == {name: [band.low, band.high] for name, band in chosen.points.items()}
    for name, band in chosen.points.items():
        assert band.low <= band.threshold <= band.high and band.on["validation"].share.value <= 0.03
        assert run.data.metrics[f"band_low_{name}"] == pytest.approx(band.low)
        assert run.data.metrics[f"test_undecided_{name}"] == pytest.approx(band.on["test"].share.value)
    point = report.served.operating_point
    assert referred.reasons["undecided"] == chosen.points[point].on["test"].images
    assert referral_words.rule(report) in version.description


def served_config(workflow) -> Path:
    """`service.json` of version 1."""
    source = workflow.client.get_model_version_download_uri("cxr-pneumonia", "1")
    folder = mlflow.artifacts.download_artifacts(artifact_uri=source, tracking_uri=workflow.uri)
    return Path(folder) / "artifacts/service/service.json"


def test_another_model_is_compared_with_the_champion_on_the_same_images(workflow):
    before = workflow.client.get_model_version_by_alias("cxr-pneumonia", "champion")
    train = workflow.first("train")
    done = workflow.project("evaluate", f"run_id={train.info.run_id}", *PLAIN, *SMALL[-2:])
    assert done.returncode == 0, done.stderr
    run = workflow.runs("evaluate")[0]
    report = report_of(workflow, run)
    assert report.champion.version == int(before.version)
    assert 0 < report.champion.test.mcnemar_p <= 1
    difference = report.champion.validation.differences["macro_f1"].value
    theirs = report.champion.validation.other["macro_f1"]
    assert difference == pytest.approx(report.validation.scores["macro_f1"].value - theirs)
    now = workflow.client.get_model_version_by_alias("cxr-pneumonia", "champion")
    passed = all(check.passed for check in report.gate.checks)
    assert (str(now.version) == run.data.tags["cxr.model_version"]) == passed
    if difference <= 0:
        assert str(now.version) == str(before.version) and "challenger" in run.data.tags["cxr.gate"]


def test_a_champion_whose_files_are_gone_stays_until_somebody_decides(workflow, tmp_path):
    client, settings = workflow.client, ("registry.name=gone", *PLAIN, *SMALL[-2:])
    source = client.get_model_version("cxr-pneumonia", "1")
    files = mlflow.artifacts.download_artifacts(
        artifact_uri=client.get_model_version_download_uri(source.name, source.version),
        tracking_uri=workflow.uri,
        dst_path=str(tmp_path),
    )
    client.create_registered_model("gone")
    version = client.create_model_version("gone", files, tags=source.tags)
    client.set_registered_model_alias("gone", "champion", version.version)
    shutil.rmtree(f"{files}/artifacts/service")
    done = workflow.project("evaluate", f"run_id={workflow.first('train').info.run_id}", *settings)
    assert done.returncode == 0, done.stderr
    run = workflow.runs("evaluate")[0]
    assert "are gone" in run.data.tags["cxr.gate"] and "promote" in run.data.tags["cxr.gate"]
    assert workflow.client.get_model_version_by_alias("gone", "champion").version == version.version
    assert "are gone" in report_of(workflow, run).champion.why_not


def test_the_same_weights_are_registered_again_when_the_code_that_serves_them_has_changed(workflow, in_process):
    settings = parameters("registry.name=served-anew", *PLAIN, *SMALL[-2:])
    assert in_process("evaluate", **settings) == in_process("evaluate", **settings) == 0
    assert [v.version for v in workflow.client.search_model_versions("name='served-anew'")] == [1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(identity, "serving_code", lambda *_: "another")
        assert in_process("evaluate", **settings) == 0
    versions = workflow.client.search_model_versions("name='served-anew'")
    assert sorted(v.version for v in versions) == [1, 2]
    assert len({v.tags["cxr.bundle_digest"] for v in versions}) == 1
    champion = workflow.client.get_model_version_by_alias("served-anew", "champion")
    assert champion.version == 2 and "the weights of version 1" in champion.tags["cxr.gate"]


@pytest.mark.slow
@pytest.mark.long
def test_seeds_give_a_spread_and_their_ensemble_is_registered(workflow):
    known = {step: {run.info.run_id for run in workflow.runs(step)} for step in ("train", "finetune")}
    done = workflow.project("main", *SMALL, "seeds=2", "ensemble=true")
    assert done.returncode == 0, done.stderr
    assert "Over 2 seeds (42 to 43)" in done.stdout
    for step in ("train", "finetune"):  # seed 42 is there already
        assert re.search(rf"{step}: reused run (\w+)", done.stderr)[1] in known[step]
        assert len(workflow.runs(step)) == len(known[step]) + 1
    main, ensemble = workflow.runs("main")[0], workflow.runs("ensemble")[0]
    evaluated = workflow.runs("evaluate")[1:3]  # the newest is the ensemble's
    values = [run.data.metrics["test_macro_f1"] for run in evaluated]
    assert main.data.metrics["test_macro_f1_mean"] == pytest.approx(sum(values) / 2)
    assert len({run.data.tags["cxr.split_run_id"] for run in (*evaluated, ensemble)}) == 1
    versions = workflow.client.search_model_versions("name='cxr-pneumonia'")
    [version] = [v for v in versions if v.tags.get("cxr.ensemble_run_id") == ensemble.info.run_id]
    assert json.loads(workflow.artifact(ensemble, "bundle/config.json").read_text())["members"] == 2
    assert version.tags["cxr.evaluate_run_id"] == workflow.runs("evaluate")[0].info.run_id


@pytest.mark.slow
def test_folds_are_cross_validated_and_their_ensemble_is_judged_by_out_of_fold_answers(workflow):
    folds = 2
    settings = (
        *("folds=2", "registry.name=folded", "train.epochs=1", "finetune.unfreeze=0"),
        *(*PLAIN, "evaluate.gallery=3"),
    )
    done = workflow.project("main", *SMALL, *settings, "ensemble=true")
    assert done.returncode == 0, done.stderr
    assert "Over 2 folds: mean" in done.stdout and "validation, macro-F1" in done.stdout
    main, ensemble, evaluated = (workflow.runs(step)[0] for step in ("main", "ensemble", "evaluate"))
    members = workflow.runs("evaluate")[1 : 1 + folds]
    for metric in ("val_macro_f1", "test_macro_f1"):
        values = [run.data.metrics[metric] for run in members]
        assert main.data.metrics[f"{metric}_mean"] == pytest.approx(sum(values) / folds)
    for kinds in (("prepare_split",), ("train",), ("finetune",)):
        assert [run.data.tags["cxr.fold"] for run in workflow.runs(*kinds)[:folds]] == [main.info.run_id] * folds
        newest = runs.newest(workflow.client, workflow.experiment_id, kinds)
        assert newest.info.run_id not in [run.info.run_id for run in workflow.runs(*kinds)[:folds]]
    starts = ("finetune", "train", "ensemble")
    assert runs.newest(workflow.client, workflow.experiment_id, starts).info.run_id == ensemble.info.run_id
    splits = [workflow.client.get_run(run.data.tags["cxr.split_run_id"]) for run in members[::-1]]
    manifests = [Manifest.load(workflow.artifact(run, "split")) for run in splits]
    assert complete(manifests) and "the images were decoded by run" in done.stderr
    report, pool = report_of(workflow, evaluated), manifests[0].cross_validated()
    assert report.out_of_fold and report.model.facts.folds == folds and report.data.digest == pool.digest
    assert report.validation.images == len(pool.split("val"))
    # The answers on validation are those of the single members, not of the ensemble that has seen the images.
    answers = pd.read_csv(workflow.artifact(ensemble, f"bundle/{FILE}"))
    logits, labels = answers[list(pool.classes)].to_numpy(), pool.split("val").labels()
    bundle = json.loads(workflow.artifact(ensemble, "bundle/config.json").read_text())
    assert bundle["temperature"] == pytest.approx(fit_temperature(logits, labels))
    accuracy = report.validation.scores["accuracy"].value
    assert accuracy == pytest.approx((logits.argmax(1) == labels).mean())
    assert report.served.referred["val"].images == len(manifests[0].split("val"))
    assert report.bands.images == len(labels)  # all answers out of fold
    audit = pd.read_csv(workflow.artifact(evaluated, "evaluation/label_audit.csv"))
    assert len(audit) == sum(report.label_audit.doubtful.values()) and report.label_audit.images == len(labels)
    text = workflow.artifact(evaluated, "evaluation/report.html").read_text()
    assert "single members" in text and "The last column is descriptive" in text
    assert len(audit) > 0 and "The most doubtful labels: given label" in text


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"seeds": 0}, "seeds: expected a whole number from 1"),
        ({"ensemble": "true"}, "add -P seeds=5"),
        ({"registry__gate__metric": "loss"}, "registry.gate.metric = 'loss'"),
    ],
)
def test_invalid_settings_are_refused(refused, settings, words):
    assert words in refused("main", **settings)

"""The number of views belongs to the version that is registered: evaluated, calibrated and served with it."""

import json

from cxr.evaluation.results import EvaluationReport
from cxr.models import bundle
from tests.cxr.training.test_loop import same
from tests.steps.conftest import PLAIN, SMALL, parameters


def test_a_version_with_several_views(workflow, in_process):
    trained = workflow.client.get_run(workflow.runs("main")[-1].data.tags["cxr.finetune_run_id"])
    settings = parameters("registry.name=several-views", "evaluate.views=2", *PLAIN, *SMALL[-2:])
    settings["run_id"] = trained.info.run_id
    assert in_process("evaluate", **settings) == in_process("evaluate", **settings) == 0
    run = workflow.runs("evaluate")[0]
    report = EvaluationReport.model_validate_json(workflow.artifact(run, "evaluation/report.json").read_text())
    before, after = (json.loads(workflow.artifact(r, "bundle/config.json").read_text()) for r in (trained, run))
    assert "views" not in before and after["views"] == report.model.views == 2
    weights = [bundle.load(workflow.artifact(r, "bundle")).network.module.state_dict() for r in (trained, run)]
    assert same(*weights)
    assert report.model.temperature == after["temperature"] != before["temperature"]
    assert report.validation.calibration.temperature == after["temperature"]
    [version] = workflow.client.search_model_versions("name='several-views'")
    assert version.tags["cxr.bundle_digest"] == run.data.tags["cxr.output_digest"] == report.model.digest
    assert report.model.digest != trained.data.tags["cxr.output_digest"]
    assert "mean of 2 views" in workflow.artifact(run, "evaluation/model_card.md").read_text()

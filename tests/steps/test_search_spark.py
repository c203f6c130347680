"""A search on Spark workers: the same trials, results and refusals as on this machine."""

import os
import signal
import sys

import pandas as pd
import pytest

from tests.helpers import wait_for
from tests.steps.conftest import SMALL
from tests.steps.test_search import SPACE, all_trials
from tests.steps.test_workflow import processes_of

SPARK = "search.engine=spark"


def test_without_spark_one_line_says_how_to_install_it(refused, monkeypatch):
    for name in ("pyspark", "pyspark.errors", "pyspark.sql"):
        monkeypatch.setitem(sys.modules, name, None)
    told = "engine=spark needs Spark: pip install -r requirements-spark.txt"
    assert told in refused("search", search__engine="spark", profile="sample")


@pytest.fixture(scope="module")
def searched(new_workflow):
    pytest.importorskip("pyspark", reason="an extra: pip install -r requirements-spark.txt")
    workflow = new_workflow(run=False)
    done = workflow.project("search", *SMALL, SPACE, SPARK, "trials=3", "workers=2", timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return workflow, done.stdout + done.stderr


def test_workers_run_trials_on_one_split_and_the_best_is_kept(searched):
    workflow, output = searched
    trials = all_trials(workflow)
    assert [run.data.tags["cxr.trial.state"] for run in trials] == ["complete"] * 3
    assert sorted(run.info.run_name for run in trials) == ["trial 1", "trial 2", "trial 3"]
    assert len({run.data.tags["cxr.process"] for run in trials}) == 2  # two workers
    [study] = {run.data.tags["mlflow.parentRunId"] for run in trials}
    search = workflow.first("search")
    assert workflow.client.get_run(study).data.tags["mlflow.parentRunId"] == search.info.run_id
    finetuned = {run.data.tags["mlflow.parentRunId"]: run for run in workflow.runs("finetune")}
    assert finetuned.keys() == {run.info.run_id for run in trials}
    assert {run.data.tags["cxr.split_run_id"] for run in finetuned.values()} == {
        workflow.first("prepare_split").info.run_id
    }
    for trial in trials:
        assert trial.data.metrics["score"] == finetuned[trial.info.run_id].data.metrics["best_val_metric"]
        rate = finetuned[trial.info.run_id].data.params["finetune.optimizer.lr"]
        assert float(rate) == pytest.approx(float(trial.data.params["finetune.optimizer.lr"]))
    table = pd.read_csv(workflow.artifact(search, "search/trials.csv"))
    assert table["score"].max() == pytest.approx(search.data.metrics["best_score"])
    assert "Study 'search': 3 complete" in output
    assert not [run for run in workflow.client.search_runs([workflow.experiment_id]) if run.info.status == "RUNNING"]


def test_it_goes_on_with_what_the_store_has(searched):
    workflow, _ = searched
    again = workflow.project("search", *SMALL, SPACE, SPARK, "trials=4")
    assert again.returncode == 0, again.stderr
    trials = all_trials(workflow)
    assert len(trials) == 4
    assert len({run.data.params["finetune.optimizer.lr"] for run in trials}) == 4
    assert len({run.data.tags["mlflow.parentRunId"] for run in trials}) == 1  # one study
    local = workflow.project("search", *SMALL, SPACE, "trials=5")
    assert local.returncode == 1
    assert "the study 'search' has trials of engine=spark" in local.stderr


def test_trials_that_all_fail_fail_the_search_in_one_line(searched):
    workflow, _ = searched
    space = "search.space={finetune.optimizer.lr: {low: 1.0e+30, high: 1.0e+31}}"
    done = workflow.project("search", *SMALL, SPARK, space, "trials=1", "study=far")
    assert done.returncode == 1
    [line] = [line for line in done.stderr.splitlines() if "ERROR" in line and "search:" in line]
    assert "the only trial of the study 'far' failed: step finetune failed: the " in line


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGKILL])
def test_what_is_left_of_a_search_that_was_ended_goes_on(new_workflow, sign):
    pytest.importorskip("pyspark", reason="an extra: pip install -r requirements-spark.txt")
    workflow = new_workflow(run=False)
    settings = (*SMALL, SPACE, SPARK, "trials=1", "finetune.unfreeze=0", "finetune.epochs=150", "finetune.patience=150")
    driver = workflow.start("search", *settings)
    wait_for(lambda: any("val_metric" in run.data.metrics for run in workflow.runs("finetune", "RUNNING")), 240)
    for process in processes_of(workflow.folder):
        if "steps.search" in " ".join(process.cmdline()):
            os.kill(process.pid, sign)
    driver.wait(60)
    wait_for(lambda: not processes_of(workflow.folder), 60)
    done = workflow.project("search", *settings, "search.prune_after=null", timeout=600)
    assert done.returncode == 0, done.stderr
    states = [run.data.tags["cxr.trial.state"] for run in all_trials(workflow)]
    assert states == ["interrupted", "complete"]
    assert not [run for run in workflow.client.search_runs([workflow.experiment_id]) if run.info.status == "RUNNING"]

"""Training in several processes as a user starts it: one run, the same scores, and an end that is told."""

import json
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import psutil
import pytest
import torch

from cxr.errors import CxrError
from steps.runtime import supervisor
from steps.runtime.cli import Arguments
from steps.work import processes
from tests.helpers import free_port, lives, wait_for
from tests.steps.conftest import PLAIN, ROOT, SMALL

WITHIN_S = 150  # for a training to end after one of its processes has
SCORES = (*PLAIN, "registry.register=false")
# Long enough to be interrupted, short enough to be finished then.
LONG = (
    "model.input_size=64", "train.epochs=30", "train.patience=100", "train.optimizer.lr=1e-6", "cache.features=false",
    "precision=float32",
)  # fmt: skip


@pytest.fixture(scope="module")
def several(new_workflow):
    """A store where `main` has trained in two processes what `workflow` has trained in one."""
    return new_workflow("processes=2", *SCORES)


def test_main_with_processes_leaves_one_run_with_the_scores_of_one_process(several, workflow):
    for step in ("train", "finetune"):
        (run,) = several.client.search_runs([several.experiment_id], f"tags.`cxr.step` = '{step}'")
        other = workflow.first(step)
        assert (run.info.status, run.data.tags["cxr.processes"]) == ("FINISHED", "2")
        assert other.data.tags["cxr.processes"] == "1"
        for part in ("settings", "code"):
            assert run.data.tags[f"cxr.key.{part}"] == other.data.tags[f"cxr.key.{part}"]
        for name in ("train_loss", "val_loss", "val_metric", "temperature"):
            assert run.data.metrics[name] == pytest.approx(other.data.metrics[name], rel=1e-2), name
        steps = [metric.step for metric in several.client.get_metric_history(run.info.run_id, "train_loss")]
        assert steps == sorted(set(steps)) and len(steps) == (2 if step == "train" else 1)
        lines = several.artifact(run, "logs/info.log").read_text().splitlines()
        records = [json.loads(line)["message"] for line in lines]
        assert sum(record.startswith("epoch 1 of") for record in records) == 1
    assert several.output.count("before epoch 1") == 2, "once for each step"
    assert "reused" in several.project("main", *SMALL, *SCORES, "processes=1").stderr, "the number changes no result"


def started(workflow) -> tuple[subprocess.Popen, dict[int, psutil.Process]]:
    """A training in two processes, and these by their rank, after some epochs."""
    known = {run.info.run_id for run in workflow.runs("train", "RUNNING")}
    top = workflow.start("train", *LONG, "processes=2", stderr=subprocess.PIPE, text=True)

    def trains():
        assert top.poll() is None, top.stderr.read()
        runs = [run for run in workflow.runs("train", "RUNNING") if run.info.run_id not in known]
        # An epoch is logged before its checkpoint: with the third, that of the first is there.
        return runs and len(workflow.client.get_metric_history(runs[0].info.run_id, "train_loss")) >= 3

    wait_for(trains, 240)
    ranks = {}
    for process in psutil.Process(top.pid).children(recursive=True):
        if (rank := process.environ().get("RANK")) is not None:
            ranks[int(rank)] = process
    return top, ranks


@pytest.mark.parametrize("victim", [0, pytest.param(1, marks=pytest.mark.long)])
def test_a_killed_process_ends_the_run_with_a_line_that_names_it(workflow, victim):
    top, ranks = started(workflow)
    everything = [psutil.Process(top.pid), *psutil.Process(top.pid).children(recursive=True)]
    ranks[victim].kill()
    began = time.monotonic()
    _, printed = top.communicate(timeout=WITHIN_S)
    assert time.monotonic() - began < WITHIN_S
    assert top.returncode == 1
    line = f"process {victim} of 2 was killed by SIGKILL (was it out of memory?); start again to go on"
    assert line in printed and printed.count("ERROR: ") == 1 and "Traceback" not in printed
    run = workflow.runs("train", "FAILED")[0]
    assert line in run.data.tags["cxr.error"]
    assert line in (workflow.folder / "logs/errors.log").read_text()
    assert not [process for process in everything if lives(process.pid)]
    resumed = workflow.project("train", *LONG, f"resume={run.info.run_id}", "processes=1")
    assert resumed.returncode == 0, resumed.stderr
    assert workflow.client.get_run(run.info.run_id).info.status == "FINISHED"
    steps = [metric.step for metric in workflow.client.get_metric_history(run.info.run_id, "train_loss")]
    assert sorted(set(steps)) == list(range(1, 31))


def test_an_interrupted_training_ends_all_its_processes(workflow):
    top, ranks = started(workflow)
    supervising = ranks[0].parent()
    supervising.send_signal(signal.SIGTERM)
    _, printed = top.communicate(timeout=WITHIN_S)
    assert "interrupted; finished work is kept" in printed and "ERROR: " not in printed  # MLflow has a line of its own
    run = workflow.runs("train", "FAILED")[0]  # by `mlflow run`, whatever its command has said
    assert "cxr.error" not in run.data.tags
    assert not any(lives(process.pid) for process in ranks.values())


def test_processes_end_with_the_one_that_supervises_them(workflow):
    top, ranks = started(workflow)
    ranks[0].parent().kill()
    wait_for(lambda: not any(lives(process.pid) for process in ranks.values()), WITHIN_S)
    top.communicate(timeout=WITHIN_S)


def once(workflow) -> list[str]:
    """Words after `python` for a training of one epoch."""
    split = workflow.first("prepare_split").info.run_id
    return ["-m", "steps.train", "--split_run_id", split, "--train.epochs", "1", "--precision", "float32",
            "--model.input_size", "64", "--log_dir", str(workflow.folder / "logs")]  # fmt: skip


def test_torchrun_starts_the_steps_as_well(workflow):
    """Any starter that sets the variables of `env://` will do; here nothing but these variables."""
    command = [str(workflow.programs / "python"), *once(workflow)]
    variables = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    environment = {**workflow.environment, "MLFLOW_EXPERIMENT_ID": workflow.experiment_id, **variables}
    before = len(workflow.runs("train"))
    both = [
        subprocess.Popen(
            command, cwd=ROOT, env={**environment, "RANK": str(rank)}, stderr=subprocess.PIPE, text=True
        )
        for rank in (0, 1)
    ]  # fmt: skip
    outputs = [process.communicate(timeout=240)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert "epoch 1 of 1" in outputs[0] and outputs[1] == ""
    assert len(workflow.runs("train")) == before + 1


DISTRIBUTOR = """
import sys
from pyspark.ml.torch.distributor import TorchDistributor
from pyspark.sql import SparkSession
SparkSession.builder.getOrCreate()
TorchDistributor(num_processes=2, local_mode=True, use_gpu=False).run(*sys.argv[1:])
"""


def test_the_distributor_of_spark_starts_the_steps_as_well(workflow):
    pytest.importorskip("pyspark", reason="an extra: pip install -r requirements-spark.txt")
    before = len(workflow.runs("train"))
    environment = {**workflow.environment, "MLFLOW_EXPERIMENT_ID": workflow.experiment_id}
    command = [sys.executable, "-c", DISTRIBUTOR, *once(workflow)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0 and done.stdout.count("train: epoch 1 of 1") == 1, done.stdout + done.stderr
    assert len(workflow.runs("train")) == before + 1
    assert workflow.runs("train")[0].data.tags["cxr.processes"] == "2"


def test_the_other_processes_do_without_mlflow():
    code = "import sys, steps.runtime.runner, steps.work.processes, steps.work.training; print('mlflow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


@pytest.mark.parametrize(
    "step, parameters, variables, words",
    [
        ("train", {"processes": "two"}, {}, "processes=two: expected a whole number from 1 on, or auto"),
        ("train", {"processes": "0"}, {}, "processes=0: expected a whole number from 1 on"),
        ("main", {"processes": "x"}, {}, "processes=x: expected a whole number"),
        ("train", {}, {"RANK": "2", "WORLD_SIZE": "2"}, "RANK=2 and WORLD_SIZE=2: expected a rank from 0 to 1"),
    ],
)
def test_a_number_that_is_none_is_refused(refused, monkeypatch, step, parameters, variables, words):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert words in refused(step, **parameters)


@pytest.mark.parametrize(
    "step, parameters, words",
    [
        ("evaluate", (), "evaluate works in one process, and WORLD_SIZE is 2; start it once, not by torchrun"),
        ("train", ("--processes", "2"), "processes=2 is given, and WORLD_SIZE=2 processes are started already"),
    ],
)
def test_a_step_that_is_started_several_times_says_what_is_wrong(step, parameters, words):
    environment = {**os.environ, "RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}
    command = [sys.executable, "-m", f"steps.{step}", *parameters]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1 and words in done.stderr and len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "flags, overrides, cards, number",
    [
        ({}, {}, 0, 1),
        ({}, {}, 4, 4),
        ({}, {"device": "cpu"}, 4, 1),
        ({"processes": "auto"}, {}, 2, 2),
        ({"processes": "3"}, {}, 0, 3),
        ({"processes": "3"}, {"device": "cpu"}, 2, 3),
        ({"processes": "2"}, {}, 4, 2),
    ],
)
def test_there_is_a_process_for_each_card(monkeypatch, flags, overrides, cards, number):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: cards)
    assert processes.wanted(Arguments(flags, overrides)) == number


def test_more_processes_than_cards_are_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(CxrError, match="processes=3: this machine has 2 cards, one for each process; give at most 2"):
        processes.wanted(Arguments({"processes": "3"}, {}))


def ended(exitcode: int, message: str | dict = "To enable traceback see", timestamp: int = 0) -> SimpleNamespace:
    return SimpleNamespace(
        exitcode=exitcode, message=message, timestamp=timestamp, signal_name=lambda: signal.Signals(-exitcode).name
    )


@pytest.mark.parametrize(
    "failures, words",
    [
        ({0: ended(130), 1: ended(1, {"message": "CxrError: x.png has changed"}, 9)}, "process 1 of 3: x.png"),
        ({1: ended(1, {"message": "KeyError: 3"}), 2: ended(-15)}, "process 1 of 3: KeyError: 3 (a bug in"),
        ({0: ended(supervisor.LOST), 1: ended(-9, timestamp=5), 2: ended(130)}, "process 1 of 3 was killed by SIGKILL"),
        ({0: ended(supervisor.LOST), 2: ended(-11, timestamp=5)}, "process 2 of 3 was killed by SIGSEGV;"),
        ({0: ended(supervisor.LOST), 2: ended(130, timestamp=5)}, "process 2 of 3 ended with status 130"),
    ],
)  # fmt: skip
def test_the_process_that_ended_first_is_told(failures, words):
    assert processes._cause(failures, 3).startswith(words)

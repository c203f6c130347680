"""The image of the steps has all that they need."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

from tests.steps.conftest import ROOT, SMALL
from tests.test_kubernetes import instructions


def test_the_files_of_the_image_are_all_that_a_step_needs(new_workflow, tmp_path):
    """A step from a folder with nothing but these files, of which it changes none, without git, with another home."""
    workflow = new_workflow(run=False)
    project, work = tmp_path / "project", tmp_path / "work"
    project.mkdir()
    for copied in instructions("COPY"):
        *sources, target = shlex.split(copied)
        for source in sources:
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, project / target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(ROOT / source, project / target)
    before = sorted(project.rglob("*"))
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("bash", "sh", "uname"):
        (tools / name).symlink_to(shutil.which(name))
    environment = {name: os.environ[name] for name in ("OMP_WAIT_POLICY", "LANG") if name in os.environ}
    for assignment in shlex.split(" ".join(instructions("ENV"))):
        name, _, value = assignment.partition("=")
        environment[name] = re.sub("^/(work|tmp)", str(tmp_path / r"\1"), value)
    python = Path(sys.executable).parent
    for name in ("python", "mlflow"):  # not links: Python finds its environment beside itself
        (tools / name).write_text(f'#!/bin/sh\nexec {python / name} "$@"\n')
        (tools / name).chmod(0o755)
    environment |= {"PATH": str(tools), "MLFLOW_TRACKING_URI": workflow.uri, "PYTHONDONTWRITEBYTECODE": "1"}
    command = yaml.safe_load(instructions("ENTRYPOINT")[0])
    command[command.index("/project")] = str(project)
    given = [word for setting in (*SMALL, f"log_dir={work / 'logs'}") for word in ("-P", setting)]
    done = subprocess.run(
        [*command, "-e", "prepare_split", "--experiment-id", workflow.experiment_id, *given],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(workflow.runs("prepare_split")) == 1
    assert (work / "cache").is_dir() and (work / "logs/info.log").is_file()
    assert not re.search(r"\bgit\b", done.stdout + done.stderr, re.IGNORECASE)
    assert sorted(project.rglob("*")) == before

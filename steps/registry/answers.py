"""Answers of a registered version by the code that ships with it, in a process of its own.

Versions that different code serves cannot be loaded into one process: each brings a package `cxr`.
"""

import json
import os
import subprocess  # nosec B404  # for one constant program
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import IO, Any

from packaging.requirements import InvalidRequirement, Requirement

from cxr.errors import CxrError
from cxr.serving.answers import VARIABLE as LOG_OF_ANSWERS

_PROGRAM = Path(__file__).with_name("answering.py")
_PATIENCE_S = 10.0  # for a process that has no more to do
Row = dict[str, Any]  # columns of an answer, without heatmap and version


class Answerer:
    """A version at work; made by `answering`."""

    def __init__(self, name: str, process: "subprocess.Popen[str]", log: Path):
        self.name, self._process, self._log = name, process, log

    def answer(self, paths: list[str], point: str = "") -> list[Row]:
        """One row for each file, in order, at an operating point; empty: that of the version.

        Raises:
            CxrError: the version cannot answer.
        """
        requests, _ = self._pipes()
        with suppress(BrokenPipeError):  # the missing reply tells why
            requests.write(json.dumps({"paths": paths, "point": point}) + "\n")
            requests.flush()
        rows = self.reply()
        if len(rows) != len(paths):
            raise CxrError(f"{self.name} gave {len(rows)} answers to {len(paths)} images")
        return rows

    def reply(self) -> list[Row]:
        """The next reply of the process."""
        line = self._pipes()[1].readline()
        if not line:
            said = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            raise CxrError(f"the process of {self.name} ended: {said[-1][:300] if said else 'it said nothing'}")
        reply = json.loads(line)
        if "error" in reply:
            raise CxrError(f"{self.name} cannot answer in this environment ({reply['error']})")
        return reply["rows"]

    def _pipes(self) -> tuple[IO[str], IO[str]]:
        if self._process.stdin is None or self._process.stdout is None:
            raise RuntimeError("the process was started without pipes")
        return self._process.stdin, self._process.stdout


@contextmanager
def answering(name: str, model: Path, log: Path) -> Iterator[Answerer]:
    """Load the model in the folder `model`, called `name`, for the length of the block.

    Args:
        name: for errors.
        model: what MLflow has logged: `MLmodel`, its code, the served files.
        log: file for what the process prints.

    Raises:
        CxrError: it cannot be loaded here.
    """
    with log.open("w", encoding="utf-8") as printed:
        process = subprocess.Popen(  # noqa: S603  # nosec B603  # a constant program, and a folder of ours
            [sys.executable, "-P", str(_PROGRAM), str(model)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=printed,
            encoding="utf-8",
            # These are no answers of a service in use, and must not get into its log.
            env={name: value for name, value in os.environ.items() if name != LOG_OF_ANSWERS},
            cwd=model,  # a relative path in PYTHONPATH, or none, must not lead to this project
        )
    try:
        answerer = Answerer(name, process, log)
        answerer.reply()
        yield answerer
        if process.stdin is not None:
            process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            process.wait(_PATIENCE_S)
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()


def other_packages(model: Path) -> list[str]:
    """The packages that the model in a folder pins at other versions than are installed here, with both versions."""
    file = model / "requirements.txt"
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    return [told for line in lines if (told := _other(line))]


def _other(line: str) -> str:
    try:
        wanted = Requirement(line)
    except InvalidRequirement:  # an empty line, a comment, an option
        return ""
    if wanted.marker is not None and not wanted.marker.evaluate():
        return ""
    try:
        here = version(wanted.name)
    except PackageNotFoundError:
        here = "none"
    else:
        if wanted.specifier.contains(here, prereleases=True):
            return ""
    return f"{wanted.name} {wanted.specifier} (here: {here})"

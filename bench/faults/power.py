"""Power failures: what the project writes is then the old one, the new one, or absent and written again; never half.

    python -m bench.faults.power

The disk is played by `bench.faults.power_recorder`. It plays what the project writes itself; MLflow's database and
what MLflow copies into its artifacts are MLflow's.
"""

import hashlib
import logging
import os
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from unittest import mock

from bench.faults.common import Case, Table, arguments
from bench.faults.power_cases import HalfError, Written, cases
from bench.faults.power_recorder import Moment, Outcome, Recorder, lay_out, outcomes


def main() -> None:
    """Play every case."""
    logging.disable(logging.WARNING)  # such as that something is damaged and built again
    table = Table("Power failures", given := arguments(__doc__ or "", count=200, minutes=10))
    with tempfile.TemporaryDirectory() as scratch:
        written = cases(Path(scratch))
        for number, what in enumerate(written, 1):
            end = 60 * given.minutes * number / len(written)
            with tempfile.TemporaryDirectory(dir=scratch) as place:
                play(what, Path(place), table.case(what.name), given.seed, given.count, lambda: table.seconds > end)  # noqa: B023
    table.finish()


def play(
    what: Written, place: Path, case: Case, seed: int, drawn: int, late: Callable[[], bool] = lambda: False
) -> None:
    """Let the power fail at every moment: the extreme outcomes, then `drawn` random ones until it is `late`."""
    folder = place / "folder"
    folder.mkdir()
    what.prepare(folder)
    with Recorder(folder) as recorder:
        what.write(folder, recorder)
    played: set[tuple[str, int, bool]] = set()
    for outcome in outcomes(seed, drawn):
        if outcome.drawn and late():
            return
        for moment in recorder.moments:
            _fail_at(what, place, case, outcome, moment, moment is recorder.moments[-1], played)


def _fail_at(
    what: Written,
    place: Path,
    case: Case,
    outcome: Outcome,
    moment: Moment,
    finished: bool,
    played: set[tuple[str, int, bool]],
) -> None:
    with tempfile.TemporaryDirectory(dir=place) as scratch:
        left = Path(scratch, "left")
        lay_out(moment, outcome, left)
        state = (_digest(left), moment.promise, finished)
        if state in played:
            return
        played.add(state)
        try:
            with mock.patch.object(os, "fsync"):  # the power stays on now
                said = what.read(left, moment.promise)
            if finished and said not in what.finished:
                raise HalfError(f"{said}, although writing was finished")
            case.add(said)
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            message = str(error).splitlines()[0] if str(error) else f"at {Path(where.filename).name}:{where.lineno}"
            case.fail(f"{outcome.name}; {moment.call}: {type(error).__name__} {message}")


def _digest(folder: Path) -> str:
    """Of all names and content."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        content = path.read_bytes() if path.is_file() else b"folder"
        digest.update(f"{path.relative_to(folder)}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


if __name__ == "__main__":
    main()

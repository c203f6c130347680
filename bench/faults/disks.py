"""Run steps on full and read-only disks, then make room and run them again.

    python -m bench.faults.disks --count 30 --minutes 30

The disk holds the store, the artifacts, the caches, the logs or the temporary files. A step must end with one line
that names the folder, without a trace, with exit status 1 and, where the store can be written, a FAILED run. With room
again, the same command must succeed, with the results of an undisturbed one.
"""

import random
import tempfile
from pathlib import Path

from bench.faults.common import Table, arguments
from bench.faults.mounts import CannotMountError, fill, make_room, read_only, small_disk
from bench.faults.workspace import FOLDERS, Started, Workspace

MEGABYTES = 256  # of a disk: enough for all that a workflow writes
MOST_LEFT = 60_000_000  # bytes that are free at the start of `main` on a disk that fills up


def main() -> None:
    """Run the campaign: each disk full and read-only from the start, then disks that fill up during `main`."""
    given = arguments(__doc__.splitlines()[0], count=30, minutes=30)
    table = Table("Full and read-only disks", given)
    rng = random.Random(given.seed)  # noqa: S311
    from_the_start = [(name, kind) for name in FOLDERS for kind in ("full", "read-only")]
    rng.shuffle(from_the_start)
    with tempfile.TemporaryDirectory(prefix="cxr-disks-") as folder:
        reference: Workspace | None = None
        for number in table.attempts():
            workspace = Workspace(Path(folder) / str(number))
            step, (name, kind) = "prepare_split", from_the_start[number % len(from_the_start)]
            left = 0
            if number >= len(from_the_start):
                reference = reference or _undisturbed(Path(folder) / "undisturbed")
                step, name, kind = "main", rng.choice(FOLDERS), "filling up"
                left = round(MOST_LEFT ** rng.random())
            case = table.case(f"{name} {kind}")
            try:
                with small_disk(workspace.folder / name, MEGABYTES) as disk:
                    problem, outcome = _attempt(workspace, disk, step, kind, left, reference)
            except CannotMountError as error:
                table.skip(str(error))
            if problem:
                case.fail(f"{step}, {left:,} bytes left: {problem}")
            else:
                case.add(outcome)
    table.finish()


def _undisturbed(folder: Path) -> Workspace:
    workspace = Workspace(folder)
    workspace.make_store()
    if workspace.start().wait():
        raise SystemExit("the undisturbed workflow failed")
    return workspace


def _attempt(
    workspace: Workspace, disk: Path, step: str, kind: str, left: int, reference: Workspace | None
) -> tuple[str, str]:
    """Run a step on the disk, make room, and run it again; returns what is wrong, or how it ended."""
    workspace.make_store()
    if kind == "read-only":
        read_only(disk)
    else:
        fill(disk, left)
    first = workspace.start(step)
    status = first.wait()
    if status == 0 and kind == "filling up":
        outcome = "had room enough"
    elif problem := _wrong(workspace, first, status, disk):
        return f"{problem}\n{first.text[-3000:]}", ""
    else:
        outcome = "one line, then done"
    if kind == "read-only":
        read_only(disk, on=False)
    else:
        make_room(disk)
    again = workspace.start(step)
    if again.wait():
        return f"with room again, it failed:\n{again.text[-3000:]}", ""
    running = [run.info.run_name for run in workspace.runs() if run.info.status == "RUNNING"]
    if running or workspace.leftovers():
        return f"left RUNNING: {running}, left over: {workspace.leftovers()}", ""
    if step == "main" and reference is not None and workspace.results() != reference.results():
        return "the results are others than those of an undisturbed workflow", ""
    return "", outcome


def _wrong(workspace: Workspace, ended: Started, status: int, disk: Path) -> str:
    """What is wrong with the end of a step whose disk was full or read-only; empty if nothing is."""
    if status != 1:
        return f"expected exit status 1, got {status}"
    if "Traceback" in ended.text or "Logging error" in ended.text:
        return "it printed a trace"
    # Driver and step are two processes, and each has one line.
    lines = [line for line in ended.text.splitlines() if "ERROR" in line]
    told = {line.partition("ERROR: ")[2].partition(" failed: ")[2] or line.partition("ERROR: ")[2] for line in lines}
    if len(told) != 1 or len(lines) > 2:
        return f"expected one line, got {len(lines)}"
    if str(disk) not in told.pop():
        return f"the line does not name {disk}"
    if disk.name == "store":
        return ""
    newest = workspace.runs()[0]
    if newest.info.status != "FAILED" or "cxr.error" not in newest.data.tags:
        return f"its run is {newest.info.status}, with the tags {sorted(newest.data.tags)}"
    return ""


if __name__ == "__main__":
    main()

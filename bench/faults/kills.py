"""Kill `main` at random moments, start it again until it is done, and compare with an undisturbed one.

    python -m bench.faults.kills --count 100 --minutes 120

Afterwards there must be the same weights, scores and caches bit for bit, one version, which is champion, no run that is
still RUNNING, no process, and no file under a temporary name.
"""

import os
import random
import signal
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from bench.faults.common import Table, arguments
from bench.faults.workspace import MODEL, Started, Workspace

NOMINAL_S = 40.0  # within which the moments are drawn; about what `main` takes on two cores
HITS = 3  # on one workflow, at most
GRACE_S = 40  # for everything to end after a hit
KINDS = {
    "SIGKILL to the driver": (signal.SIGKILL, ("driver",)),
    "SIGKILL to the step": (signal.SIGKILL, ("step",)),
    "SIGKILL to both": (signal.SIGKILL, ("driver", "step")),
    "SIGTERM to the driver": (signal.SIGTERM, ("driver",)),
    "SIGTERM to the step": (signal.SIGTERM, ("step",)),
    "SIGINT to all, as Ctrl-C": (signal.SIGINT, ("group",)),
}
UNBROKEN = "afterwards as undisturbed"


def main() -> None:
    """Run the campaign."""
    given = arguments(__doc__.splitlines()[0], count=100, minutes=120)
    table = Table("Killed workflows", given)
    rng = random.Random(given.seed)  # noqa: S311
    with tempfile.TemporaryDirectory(prefix="cxr-kills-") as folder:
        undisturbed = Workspace(Path(folder) / "undisturbed")
        undisturbed.make_store()
        reference = undisturbed.start()
        hits = 0
        for number in table.attempts():
            if hits >= given.count:
                break
            workspace = Workspace(Path(folder) / f"killed-{number}")
            workspace.make_store()
            plan = [(rng.choice(list(KINDS)), rng.uniform(1, NOMINAL_S)) for _ in range(min(HITS, given.count - hits))]
            hits += _kill(table, workspace, plan)
            problems = _finish(workspace)
            if not problems:
                problems = _compare(undisturbed, reference, workspace)
            case = table.case(UNBROKEN)
            for problem in problems:
                case.fail(f"workflow {number}, hit by {_told(plan)}: {problem}")
            if not problems:
                case.add("same")
    table.finish()


def _kill(table: Table, workspace: Workspace, plan: list[tuple[str, float]]) -> int:
    """Start `main` and hit it, for every entry of the plan or until it is done; returns the number of hits."""
    for number, (kind, moment) in enumerate(plan):
        started = workspace.start()
        time.sleep(moment)
        if not _hit(started, *KINDS[kind]):
            started.wait()
            return number
        case, problem = table.case(kind), _ended(workspace, started, kind)
        if problem:
            case.fail(f"after {moment:.1f} s: {problem}\n{started.text[-2000:]}")
        else:
            case.add("ended")
    return len(plan)


def _hit(started: Started, signum: signal.Signals, victims: tuple[str, ...]) -> bool:
    """Send the signal; waits for a step to be there if one is to be hit. False if `main` is done before."""
    while (steps := started.steps()) == [] and "step" in victims and started.process.poll() is None:
        time.sleep(0.05)
    if started.process.poll() is not None:
        return False
    targets = [step.pid for step in steps] if "step" in victims else []
    if "group" in victims:
        os.killpg(started.process.pid, signum)
    else:
        for pid in ([started.process.pid] if "driver" in victims else []) + targets:
            with suppress(ProcessLookupError):
                os.kill(pid, signum)
    return True


def _ended(workspace: Workspace, started: Started, kind: str) -> str:
    """What is wrong with the end of a `main` that was hit; empty if nothing is."""
    status = started.wait(GRACE_S)
    deadline = time.monotonic() + GRACE_S
    while (left := workspace.processes()) and time.monotonic() < deadline:
        time.sleep(0.2)
    if left:
        return f"{len(left)} processes are left: {' '.join(left[0].cmdline())[:200]}"
    if "Traceback" in started.text:
        return "it printed a trace"
    signum, victims = KINDS[kind]
    expected = {0, 1, 130} if victims == ("step",) else {0, 130, -signum}
    if status not in expected:
        return f"expected exit status {' or '.join(map(str, sorted(expected)))}, got {status}"
    if signum != signal.SIGKILL and (running := [r for r in workspace.runs() if r.info.status == "RUNNING"]):
        return f"{len(running)} runs are left RUNNING"
    return ""


def _finish(workspace: Workspace) -> list[str]:
    """Start `main` until it is done; returns what is wrong."""
    started = workspace.start()
    if status := started.wait():
        return [f"started again, `main` ended with {status}:\n{started.text[-2000:]}"]
    return []


def _compare(undisturbed: Workspace, reference: Started, workspace: Workspace) -> list[str]:
    """What a workflow that was hit has left otherwise than the undisturbed one."""
    if reference.wait():
        return [f"the undisturbed workflow failed:\n{reference.text[-2000:]}"]
    problems = []
    expected, found = undisturbed.results(), workspace.results()
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            problems.append(f"{name} is another one ({expected.get(name)} and {found.get(name)})")
    versions = [version.version for version in workspace.versions()]
    champion = workspace.client.get_registered_model(MODEL).aliases.get("champion")
    if [int(v) for v in versions] != [1] or int(champion or 0) != 1:
        problems.append(f"expected version 1 as champion, got the versions {versions}, champion {champion}")
    problems += [f"run {r.info.run_name} is left RUNNING" for r in workspace.runs() if r.info.status == "RUNNING"]
    problems += [f"{path} is left over" for path in workspace.leftovers()]
    return problems


def _told(plan: list[tuple[str, float]]) -> str:
    return ", then ".join(f"{kind} after {moment:.1f} s" for kind, moment in plan)


if __name__ == "__main__":
    main()

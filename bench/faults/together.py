"""Run steps at the same time on one store and one cache: nobody may be hurt.

    python -m bench.faults.together --count 8 --minutes 30

All must succeed, with the results of an undisturbed workflow, and leave one version, which is champion.
"""

import random
import tempfile
import time
from pathlib import Path

from bench.faults.common import Table, arguments
from bench.faults.workspace import MODEL, Started, Workspace

NOMINAL_S = 40.0  # within which the moments are drawn; about what `main` takes on two cores


def main() -> None:
    """Run the campaign; each attempt is one of the cases, in turn."""
    given = arguments(__doc__.splitlines()[0], count=8, minutes=30)
    table = Table("Steps at the same time", given)
    rng = random.Random(given.seed)  # noqa: S311
    with tempfile.TemporaryDirectory(prefix="cxr-together-") as folder:
        undisturbed: Workspace | None = None
        cases = {
            "three prepare_split, no store yet": _splits,
            "two main, no store yet": _mains,
            "three evaluate": _evaluates,
            "clean during main": _clean,
        }
        for number in table.attempts():
            name = list(cases)[number % len(cases)]
            workspace = Workspace(Path(folder) / str(number))
            if number and undisturbed is None:
                undisturbed = Workspace(Path(folder) / "undisturbed")
                undisturbed.make_store()
                _all_done([undisturbed.start()])
            problems = cases[name](workspace, rng)
            if undisturbed is not None:
                problems = problems or _compare(undisturbed, workspace)
            case = table.case(name)
            for problem in problems:
                case.fail(f"attempt {number}: {problem}")
            if not problems:
                case.add("as alone")
    table.finish()


def _splits(workspace: Workspace, rng: random.Random) -> list[str]:
    """Three `prepare_split` on a store that none of them finds: its schema is made while they start."""
    started = []
    for _ in range(3):
        started.append(workspace.start("prepare_split"))
        time.sleep(rng.uniform(0, 0.5))
    problems = _all_done(started)
    digests = {run.data.tags.get("cxr.output_digest") for run in workspace.runs()}
    return problems or ([] if len(digests) == 1 else [f"expected the same split of all, got {digests}"])


def _mains(workspace: Workspace, rng: random.Random) -> list[str]:
    """Two `main` on a store that none of them finds."""
    first = workspace.start()
    time.sleep(rng.uniform(0, 2))
    return _all_done([first, workspace.start()])


def _evaluates(workspace: Workspace, rng: random.Random) -> list[str]:
    """Three `evaluate` of the same bundle, which is not registered yet."""
    workspace.make_store()
    problems = _all_done([workspace.start(**{"registry.register": "false"})])
    settings = {
        name: value for name, value in workspace.settings.items() if name.startswith(("evaluate.", "registry."))
    }
    started = []
    for _ in range(3):
        started.append(workspace.start("evaluate", **settings))
        time.sleep(rng.uniform(0, 1))
    return problems + _all_done(started)


def _clean(workspace: Workspace, rng: random.Random) -> list[str]:
    """`clean` three times during a `main`; what it takes away is made again."""
    workspace.make_store()
    workflow = workspace.start()
    begin = time.monotonic()
    problems = []
    for moment in sorted(rng.uniform(5, NOMINAL_S) for _ in range(3)):
        time.sleep(max(0.0, begin + moment - time.monotonic()))
        problems += _all_done([workspace.start("clean", what="cache")])
    problems += _all_done([workflow])
    # A second `main` fills the caches again, so that they can be compared.
    return problems + _all_done([workspace.start(reuse="false")])


def _all_done(started: list[Started]) -> list[str]:
    """Wait for all; what is wrong with those that did not succeed."""
    return [
        f"{number + 1} of {len(started)} ended with {status}:\n{one.text[-2500:]}"
        for number, one in enumerate(started)
        if (status := one.wait())
    ]


def _compare(undisturbed: Workspace, workspace: Workspace) -> list[str]:
    """What the workspace has otherwise than the undisturbed one, as far as it has it at all."""
    expected, found = undisturbed.results(), workspace.results()
    problems = [f"{name} is another one" for name in expected if name in found and expected[name] != found[name]]
    if not any(run.data.tags.get("cxr.step") == "evaluate" for run in workspace.runs()):
        return problems
    problems += [f"{name} is missing" for name in expected if name not in found]
    versions = [int(version.version) for version in workspace.versions()]
    champion = int(workspace.client.get_registered_model(MODEL).aliases.get("champion") or 0)
    if versions != [1] or champion != 1:
        problems.append(f"expected version 1 as champion, got the versions {versions}, champion {champion}")
    problems += [f"run {r.info.run_name} is {r.info.status}" for r in workspace.runs() if r.info.status != "FINISHED"]
    return problems + [f"{path} is left over" for path in workspace.leftovers()]


if __name__ == "__main__":
    main()

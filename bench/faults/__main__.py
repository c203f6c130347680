"""The short form of every part of the campaign, two at a time: `python -m bench.faults [PART ...]`."""

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor, as_completed

from bench.faults.common import SKIPPED

SHORT: dict[str, tuple[str, ...]] = {
    "kills": ("--seed", "16", "--count", "1"),  # SIGKILL to driver and step during the training
    "disks": ("--seed", "3", "--count", "1"),  # a store that may be read only
    "service": ("--count", "12", "--minutes", "0.3"),
    "together": ("--count", "1"),
    "power": ("--count", "2"),
    "files": ("--count", "400", "--minutes", "0.5"),
    "supply": (),
}
"""Arguments of the short form of each part, by module, the longest first."""
AT_ONCE = 2


def main() -> None:
    """Run the parts and exit with 1 if one of them failed."""
    wanted = sys.argv[1:] or list(SHORT)
    if unknown := [name for name in wanted if name not in SHORT]:
        sys.exit(f"unknown parts {', '.join(unknown)}: expected any of {', '.join(SHORT)}")
    failed = []
    with ThreadPoolExecutor(AT_ONCE) as threads:
        for done in as_completed([threads.submit(_run, name) for name in wanted]):
            name, status, seconds, printed = done.result()
            verdict = {0: "passed", SKIPPED: "SKIPPED"}.get(status, "FAILED")
            print(f"{printed}{name}: {verdict} in {seconds:,.0f} s", flush=True)
            failed += [name] if verdict == "FAILED" else []
    sys.exit(f"failed: {', '.join(failed)}" if failed else 0)


def _run(name: str) -> tuple[str, int, float, str]:
    """Run a part; returns its name, its exit status, the seconds it took and what it printed."""
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", f"bench.faults.{name}", *SHORT[name]],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return name, done.returncode, time.monotonic() - start, done.stdout


if __name__ == "__main__":
    main()

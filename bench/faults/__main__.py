"""The short form of every part of the campaign, one after the other: `python -m bench.faults [PART ...]`."""

import subprocess
import sys
import time

from bench.faults.common import SKIPPED

SHORT: dict[str, tuple[str, ...]] = {
    "power": ("--count", "2"),
    "supply": (),
    "files": ("--count", "400", "--minutes", "0.5"),
    "service": ("--count", "12", "--minutes", "0.3"),
    "kills": ("--seed", "16", "--count", "1"),  # SIGKILL to driver and step during the training
    "disks": ("--count", "3"),
    "together": ("--count", "1"),
}
"""Arguments of the short form of each part, by module."""


def main() -> None:
    """Run the parts and exit with 1 if one of them failed."""
    wanted = sys.argv[1:] or list(SHORT)
    if unknown := [name for name in wanted if name not in SHORT]:
        sys.exit(f"unknown parts {', '.join(unknown)}: expected any of {', '.join(SHORT)}")
    failed = []
    for name in wanted:
        start = time.monotonic()
        status = subprocess.run([sys.executable, "-m", f"bench.faults.{name}", *SHORT[name]], check=False).returncode
        verdict = {0: "passed", SKIPPED: "SKIPPED"}.get(status, "FAILED")
        print(f"{name}: {verdict} in {time.monotonic() - start:,.0f} s", flush=True)
        failed += [name] if verdict == "FAILED" else []
    sys.exit(f"failed: {', '.join(failed)}" if failed else 0)


if __name__ == "__main__":
    main()

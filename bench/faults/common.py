"""What the parts of the fault campaign share: their command line, their clock, and the table they print."""

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

SHOWN = 5  # failures of a case that are printed
SKIPPED = 77  # exit status of a part that cannot run on this machine


def arguments(about: str, count: int, minutes: float) -> argparse.Namespace:
    """The command line that every part takes; `count` and `minutes` are those of its full form."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--seed", type=int, default=0, help="decides everything that is drawn")
    parser.add_argument("--count", type=int, default=count, help=f"attempts of each case (default: {count:,})")
    parser.add_argument("--minutes", type=float, default=minutes, help=f"bound in time (default: {minutes:g})")
    parser.add_argument("--json", type=Path, help="file to write the table to")
    return parser.parse_args()


@dataclass
class Case:
    """One row of the table: attempts of one kind and what became of them."""

    name: str
    outcomes: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    def add(self, outcome: str) -> None:
        """Count an attempt that ended as it should, by how it ended."""
        self.outcomes[outcome] += 1

    def fail(self, what: str) -> None:
        """Count an attempt that did not; `what` says how to see it again."""
        self.failures.append(what)

    @property
    def attempts(self) -> int:
        """Attempts in all."""
        return self.outcomes.total() + len(self.failures)


class Table:
    """The cases of a part, and how long it may take."""

    def __init__(self, title: str, given: argparse.Namespace):
        self.title, self.given, self.cases = title, given, dict[str, Case]()
        self._start = time.monotonic()

    def case(self, name: str) -> Case:
        """The case of that name, made if it is new."""
        return self.cases.setdefault(name, Case(name))

    def attempts(self, share: float = 1.0) -> Iterator[int]:
        """Numbers of attempts up to the count, until `share` of the time is over; at least one."""
        for number in range(self.given.count):
            if number and self.seconds > share * 60 * self.given.minutes:
                return
            yield number

    @property
    def seconds(self) -> float:
        """Seconds since the part began."""
        return time.monotonic() - self._start

    def skip(self, why: str) -> NoReturn:
        """End the process: the part cannot run here, which is neither a pass nor a failure."""
        print(f"\n{self.title}: SKIPPED: {why}", flush=True)
        sys.exit(SKIPPED)

    def finish(self) -> None:
        """Print the table and end the process: with 1 if an attempt failed or none was made."""
        print(f"\n{self.title} (seed {self.given.seed}, {self.seconds:,.0f} s)\n")
        wide = max((len(name) for name in self.cases), default=4)
        print(f"| {'case':<{wide}} | attempts | failed | outcomes |\n|{'-' * (wide + 2)}|---:|---:|---|")
        for case in self.cases.values():
            ended = ", ".join(f"{count:,} {outcome}" for outcome, count in case.outcomes.most_common())
            print(f"| {case.name:<{wide}} | {case.attempts:,} | {len(case.failures):,} | {ended} |")
        for case in self.cases.values():
            for failure in case.failures[:SHOWN]:
                print(f"\n{case.name}: {failure}")
            if len(case.failures) > SHOWN:
                print(f"\n{case.name}: and {len(case.failures) - SHOWN:,} more")
        if self.given.json:
            self.given.json.write_text(json.dumps([vars(case) for case in self.cases.values()], indent=2) + "\n")
        idle = [name for name, case in self.cases.items() if not case.attempts] if self.cases else ["all"]
        if idle:
            print(f"\nno attempt was made: {', '.join(idle)}")
        sys.exit(1 if idle or any(case.failures for case in self.cases.values()) else 0)

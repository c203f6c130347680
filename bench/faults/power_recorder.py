"""What a folder may look like after a power failure at any moment of what was done to it.

A disk keeps what was synced. Of the rest it keeps what it likes: a new name without its content, content without its
name, a file cut short or full of zeros, one renaming and not an earlier one. The recorder notes, at every call that
changes or syncs names, what is safe and what is not; `lay_out` writes one of the possible outcomes.
"""

import os
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any
from unittest import mock

_CALLS = ("rename", "replace", "unlink", "remove", "rmdir", "mkdir", "truncate")


@dataclass(frozen=True)
class Node:
    """A file or a folder: `bytes`, or its names and the numbers of their nodes.

    Attributes:
        safe: its value when it was last synced.
        later: its values since then, in order.
    """

    safe: Any
    later: tuple[Any, ...] = ()

    @property
    def now(self) -> Any:
        """Its value as processes see it."""
        return self.later[-1] if self.later else self.safe


@dataclass(frozen=True)
class Moment:
    """All nodes between two calls; node 0 is the folder. `promise` is the recorder's at that time."""

    nodes: dict[int, Node]
    call: str
    promise: int


class Recorder:
    """Records what happens to a folder within a `with` block, by one thread of this process.

    Attributes:
        moments: what there was before and after each call that matters; the last one is after the block.
        promise: set it to what the recorded program has reported as done.
    """

    def __init__(self, folder: Path):
        self.folder, self.promise = folder, 0
        self.moments: list[Moment] = []
        self._nodes: dict[int, Node] = {}
        self._numbers: dict[int, int] = {}  # of the inodes that have a name
        self._patches = ExitStack()

    def __enter__(self) -> "Recorder":
        self._look()
        self._nodes = {number: Node(node.now) for number, node in self._nodes.items()}
        for name in _CALLS:
            self._patches.enter_context(mock.patch.object(os, name, self._noting(getattr(os, name))))
        self._patches.enter_context(mock.patch.object(os, "fsync", self._sync))
        return self

    def __exit__(self, *_: object) -> None:
        self._patches.close()
        self._note("the end")

    def _noting(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*arguments: Any, **options: Any) -> Any:
            self._note(f"before {call.__name__}")
            try:
                return call(*arguments, **options)
            finally:
                self._note(f"after {call.__name__}")

        return noted

    def _sync(self, handle: int) -> None:
        """In place of `os.fsync`: what is safe is only noted."""
        self._note("before fsync")
        number = self._numbers.get(os.fstat(handle).st_ino)
        if number is not None:
            self._nodes[number] = Node(self._nodes[number].now)
        self._note("after fsync")

    def _note(self, call: str) -> None:
        self._look()
        moment = Moment(dict(self._nodes), call, self.promise)
        if self.moments and self.moments[-1].nodes == moment.nodes and self.moments[-1].promise == moment.promise:
            self.moments.pop()
        self.moments.append(moment)

    def _look(self) -> None:
        """Compare the folder with the nodes."""
        seen: dict[int, int] = {}
        self._visit(self.folder, seen)
        self._numbers = seen  # the inodes of removed files are used again

    def _visit(self, place: Path, seen: dict[int, int]) -> int:
        inode, is_folder = place.stat().st_ino, place.is_dir()
        number = self._numbers.get(inode)
        if number is None:
            number = len(self._nodes)
            self._nodes[number] = Node({} if is_folder else b"")
        seen[inode] = number
        value = {p.name: self._visit(p, seen) for p in sorted(place.iterdir())} if is_folder else place.read_bytes()
        node = self._nodes[number]
        if value != node.now:
            self._nodes[number] = replace(node, later=(*node.later, value))
        return number


class Outcome:
    """A way to choose among what a disk may have kept of names and of content: all "old", all "new", or "any".

    Attributes:
        name: says which.
        drawn: whether it is a random one.
    """

    def __init__(self, names: str, contents: str, seed: str = ""):
        self.drawn = bool(seed)
        self._wanted = {"name": names, "content": contents}
        self._draw = random.Random(seed)  # noqa: S311 (no secret)
        self.name = f"{names} names, {contents} content {seed}".strip()

    def choose(self, kind: str, values: list[Any], between: Sequence[Any] = ()) -> Any:
        """One of `values`, from the safe one to the present one, or of `between`."""
        wanted = self._wanted[kind]
        return self._draw.choice([*values, *between]) if wanted == "any" else values[0 if wanted == "old" else -1]


def outcomes(seed: int, drawn: int) -> Iterator[Outcome]:
    """The extremes, then `drawn` random ones."""
    for names, contents in product(("old", "new"), repeat=2):
        yield Outcome(names, contents)
    for number in range(drawn):
        yield Outcome("any", "any", f"{seed}-{number}")


def lay_out(moment: Moment, outcome: Outcome, folder: Path, number: int = 0) -> None:
    """Write into `folder`, which is made, what the disk may have kept at that moment."""
    node = moment.nodes[number]
    values = [node.safe, *node.later]
    if isinstance(node.safe, bytes):
        folder.write_bytes(outcome.choose("content", values, _torn(node)))
        return
    folder.mkdir(parents=True)
    for name in sorted({name for value in values for name in value}):
        kept = outcome.choose("name", [value.get(name) for value in values])
        if kept is not None:
            lay_out(moment, outcome, folder / name, kept)


def _torn(node: Node) -> list[bytes]:
    """What may be left of content that was not synced."""
    if not node.later:
        return []
    whole, half = node.now, len(node.now) // 2
    return [b"", bytes(len(whole)), whole[:half], whole[:half] + bytes(len(whole) - half)]

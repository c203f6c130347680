"""Which part of the work one of several processes does, from the variables they are started with.

`torchrun`, Spark's `TorchDistributor`, Kubeflow, Ray and others give every process the variables of PyTorch's `env://`
contract: RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT. None of this needs torch.
"""

import os
from dataclasses import dataclass
from typing import TypeVar

from cxr.errors import CxrError

SUPERVISED = "CXR_SUPERVISED"  # set where the process that started these tells the end of each of them
_Value = TypeVar("_Value")


@dataclass(frozen=True)
class Share:
    """Number `rank` of `world` processes that do the same work together."""

    rank: int = 0
    world: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that alone keeps the run."""
        return self.rank == 0

    @property
    def several(self) -> bool:
        """Whether there are others."""
        return self.world > 1

    def divides(self, count: int) -> bool:
        """Whether a batch of `count` images is shared out; one with fewer images than processes is done by each."""
        return 1 < self.world <= count

    def sizes(self, count: int) -> list[int]:
        """How many of `count` images each process has: about equally many, and none twice."""
        return [count * (rank + 1) // self.world - count * rank // self.world for rank in range(self.world)]

    def part(self, count: int) -> slice:
        """The own part of `count` pieces of work; there is none for some processes where these are more."""
        return slice(count * self.rank // self.world, count * (self.rank + 1) // self.world)

    def rows(self, count: int) -> slice:
        """The own rows of a batch of `count` images; all of a batch that is not shared out."""
        return self.part(count) if self.divides(count) else slice(0, count)


WHOLE = Share()


class Crew:
    """Processes that do a piece of work together, as one of them sees them; this class itself is one that is alone.

    All of them call the same methods in the same order, and wait in each of them for the others.
    """

    share: Share = WHOLE

    def from_first(self, value: _Value | None) -> _Value:
        """The value that the first process gives, in all of them; what the others give is not used."""
        return value  # type: ignore[return-value]

    def added(self, number: int) -> int:
        """The sum of the numbers that the processes give."""
        return number


ALONE = Crew()


def from_environment() -> Share:
    """The share of this process; the whole without RANK.

    Raises:
        CxrError: the variables contradict each other, or some are missing.
    """
    if "RANK" not in os.environ:
        return WHOLE
    rank, world = _number("RANK"), _number("WORLD_SIZE")
    if rank >= world:
        raise CxrError(
            f"RANK={rank} and WORLD_SIZE={world}: expected a rank from 0 to {world - 1}; check what starts it"
        )
    if world > 1:
        for name in ("MASTER_ADDR", "MASTER_PORT"):
            if not os.environ.get(name):
                raise CxrError(f"RANK={rank} is set, {name} is not; set it, or start the processes with torchrun")
        if not 0 < _number("MASTER_PORT") < 2**16:
            raise CxrError(f"MASTER_PORT={os.environ['MASTER_PORT']}: expected a port from 1 to 65535")
    return Share(rank, world)


def local_rank() -> int:
    """Number of this process on its machine, which is also that of its card."""
    return _number("LOCAL_RANK") if "LOCAL_RANK" in os.environ else 0


def _number(name: str) -> int:
    text = os.environ.get(name, "")
    if not text.isdecimal():
        raise CxrError(f"RANK is set, and {name}={text!r}: expected a whole number; start the processes with torchrun")
    return int(text)

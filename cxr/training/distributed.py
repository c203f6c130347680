"""Several processes that train one network together: how they meet, what they exchange, how one hears of another's end.

They are started with the variables of PyTorch's `env://` contract (see `cxr.common.share`). Every process works on its
rows of every batch; logits, labels and gradients are then those of the whole batch in each of them. Those of a machine
fill its disk cache together. With a single process nothing here is more than the identity.
"""

import os
import socket
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from cxr.common import share
from cxr.common.share import ALONE, WHOLE, Crew, Share
from cxr.errors import CxrError, LostError, in_short
from cxr.models.device import Device
from cxr.training.whole_batch import WholeBatch

MEETING_S = 900.0  # for which a process waits for the others to start; pulling an image on another node takes minutes
# No exchange ends by this time: others may wait for hours while one fills the disk cache of its node. A process that
# dies closes its connections, or is noticed by what started it.
_PATIENCE = timedelta(days=2)
_FAILED = "cxr/failed"  # key of the store: which process failed, and why
_HEARD = "cxr/heard"  # keys of the store: which processes know
LAST_WORDS_S = 15.0  # for which a process waits for the one that ended the training to say why, or to be ended itself
_Value = TypeVar("_Value")


class MeetingError(CxrError):
    """The processes of a training did not find each other."""


@dataclass(frozen=True)
class Processes(Crew):
    """The processes of a training, or those of them that are on one machine, as one of them sees them.

    Attributes:
        share: which of them this is, and how many there are.
        store: what they met by; None for a single one.
        group: the connections between them; None: those between all processes.
        machine: those of this machine, which fill its disk cache together.
    """

    share: Share = WHOLE
    store: "dist.Store | None" = None
    group: "dist.ProcessGroup | None" = None
    machine: Crew = ALONE

    @property
    def first(self) -> bool:
        """Whether this is the process that alone keeps the run."""
        return self.share.first

    def from_first(self, value: _Value | None) -> _Value:
        """The value that the first process gives, in all of them; what the others give is not used."""
        values = [value]
        if not self.share.several:
            return values[0]  # type: ignore[return-value]
        with self._heard():
            dist.broadcast_object_list(values, group=self.group, group_src=0, device=torch.device("cpu"))
        return values[0]  # type: ignore[return-value]

    def whole(self, values: Tensor, count: int) -> Tensor:
        """The rows of all processes, (count, ...), from those of each; gradients reach only the own ones."""
        if not self.share.divides(count):
            return values
        sizes = self.share.sizes(count)
        padded = values.new_zeros(max(sizes), *values.shape[1:])
        padded[: len(values)] = values.detach()
        parts = [torch.empty_like(padded) for _ in sizes]
        with self._heard():
            dist.all_gather(parts, padded, group=self.group)
        rows = [part[:size] for part, size in zip(parts, sizes, strict=True)]
        rows[self.share.rank] = values
        return torch.cat(rows)

    def sum_gradients(self, parameters: Iterable[nn.Parameter], count: int) -> None:
        """Give every parameter the gradient of the whole batch of `count` images."""
        if not self.share.several:
            return
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        total = self.total(torch.cat([gradient.reshape(-1) for gradient in gradients]))
        if not self.share.divides(count):  # each process had all of it
            total /= self.share.world
        for gradient, part in zip(gradients, total.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view(gradient.shape))

    def total(self, values: Tensor) -> Tensor:
        """The sum over all processes, in place."""
        with self._heard():
            dist.all_reduce(values, group=self.group)
        return values

    def added(self, number: int) -> int:
        """The sum of the numbers that the processes give."""
        return int(self.total(torch.tensor(number))) if self.share.several else number

    def on_batch(self, count: int) -> AbstractContextManager[object]:
        """A context in which layers that train work as on the whole batch of `count` images."""
        return WholeBatch(self.share, count, self.total) if self.share.divides(count) else nullcontext()

    def use(self, device: Device) -> None:
        """Let this process compute on its own card, if on any; raises `CxrError` where there are too few."""
        if not self.share.several or device.device.type == "cpu":
            return
        if device.device.type != "cuda":
            raise CxrError(f"several processes train on CPU or CUDA, not on {device.device.type}; give device=cpu")
        number, cards = share.local_rank(), torch.cuda.device_count()
        if number >= cards:
            raise CxrError(
                f"process {number + 1} of this machine needs a card of its own, and there are {cards}; start at most "
                f"{cards} processes here, or give device=cpu"
            )
        torch.cuda.set_device(number)

    @contextmanager
    def _heard(self) -> Iterator[None]:
        """Around an exchange, which fails when another process is gone."""
        try:
            yield
        except RuntimeError as error:
            raise self._lost() from error

    def _lost(self) -> LostError:
        """Why another process has ended, as far as it said so."""
        end = time.monotonic() + LAST_WORDS_S
        # Killed without a word, it is seen by what started it, which then ends this process too. The store may be gone.
        with suppress(KeyboardInterrupt, RuntimeError):
            while self.store is not None and time.monotonic() < end:
                if self.store.check([_FAILED]):
                    words = self.store.get(_FAILED).decode()
                    self.store.set(f"{_HEARD}/{self.share.rank}", "")
                    return LostError(words, known=True)
                time.sleep(0.2)
        return LostError(
            "another process of this training ended without a message (was it killed, or out of memory?); start again "
            "with resume to go on from the last checkpoint"
        )

    def tell(self, error: Exception) -> None:
        """Let the others know why this process ends."""
        words = str(error) if isinstance(error, CxrError) else f"{type(error).__name__}: {in_short(error)}"
        if self.store is not None:
            with suppress(RuntimeError):
                self.store.set(_FAILED, f"process {self.share.rank} of {self.share.world}: {words}")
                self.store.set(f"{_HEARD}/{self.share.rank}", "")

    def wait_until_heard(self) -> None:
        """Wait, in the first process, until the others know why the training ends: the store ends with this process."""
        if self.store is None or not self.first:
            return
        end = time.monotonic() + LAST_WORDS_S
        heard = [f"{_HEARD}/{rank}" for rank in range(self.share.world)]
        with suppress(RuntimeError):
            while self.store.check([_FAILED]) and not self.store.check(heard) and time.monotonic() < end:
                time.sleep(0.05)


@contextmanager
def group() -> Iterator[Processes]:
    """The processes that were started together, once all of them are here; a single process is alone.

    Raises:
        MeetingError: the others are not found (names MASTER_ADDR and MASTER_PORT), or the port is in use.
        LostError: in the block, another process has ended.
    """
    own = share.from_environment()
    if not own.several:
        yield Processes()
        return
    processes = _meet(own)
    done = False
    try:
        yield processes
        done = True
    except Exception as error:
        if not isinstance(error, LostError):
            processes.tell(error)
        raise
    finally:
        # The others notice. Connections of cards would wait for what no longer comes: they end with the process.
        if done or not torch.cuda.is_available():
            dist.destroy_process_group()
            if not done:
                processes.wait_until_heard()


def _meet(own: Share) -> Processes:
    """Wait for the other processes, and connect with them."""
    where = f"MASTER_ADDR={os.environ['MASTER_ADDR']}, MASTER_PORT={os.environ['MASTER_PORT']}"
    check = "check both variables, which name the machine of the process with RANK 0 and a free port there"
    try:
        socket.getaddrinfo(os.environ["MASTER_ADDR"], None)
    except OSError as error:
        raise MeetingError(f"{where}: no such host ({error.strerror}); {check}") from None
    try:
        store, _, _ = next(dist.rendezvous("env://", timeout=timedelta(seconds=MEETING_S)))
        # A process of another job that was given the same port would take the place of one of ours.
        if store.add(f"cxr/here/{own.rank}", 1) > 1:
            raise MeetingError(f"{where}: RANK={own.rank} is there already; give each job a port of its own")
        store.set(f"cxr/host/{own.rank}", f"{socket.gethostname()} {os.environ.get('LOCAL_WORLD_SIZE', '')}")
        hosts = [store.get(f"cxr/host/{rank}").decode() for rank in range(own.world)]  # waits for them
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and dist.is_nccl_available() else "gloo"
        dist.init_process_group(backend, store=store, rank=own.rank, world_size=own.world, timeout=_PATIENCE)
        machines = _machines(hosts)
        # With another backend, connections between cards would be made as well.
        group: Any = dist.new_subgroups_by_enumeration(machines, _PATIENCE, "gloo")[0] if len(machines) > 1 else None
        # Whoever ends before the others are connected would seem to them never to have come.
        store.set(f"cxr/met/{own.rank}", "")
        store.wait([f"cxr/met/{rank}" for rank in range(own.world)], timedelta(seconds=MEETING_S))
    except RuntimeError as error:
        if "EADDRINUSE" in str(error) or "address already in use" in str(error).lower():
            raise MeetingError(
                f"{where}: the port is in use, perhaps by another job; give this one a free port"
            ) from None
        raise MeetingError(
            f"{where}: {own.world} processes did not meet there within {MEETING_S:g} s ({in_short(error)}); {check}, "
            f"and that all {own.world} are started"
        ) from None
    # Not part of the contract, and `cores` shares out those of a machine by it.
    os.environ.setdefault("LOCAL_WORLD_SIZE", str(hosts.count(hosts[own.rank])))
    here = next(ranks for ranks in machines if own.rank in ranks)
    return Processes(own, store, machine=Processes(Share(here.index(own.rank), len(here)), store, group))


def _machines(hosts: list[str]) -> list[list[int]]:
    """The ranks of the processes of each machine, from its name and LOCAL_WORLD_SIZE, if set, of every process.

    Where the two contradict each other, as in containers of one name, a process counts as alone: of others it is not
    known whether they have the same files.
    """
    together = defaultdict(list)
    for rank, host in enumerate(hosts):
        together[host].append(rank)
    machines: list[list[int]] = []
    for host, ranks in together.items():
        agreed = host.rpartition(" ")[2] in ("", str(len(ranks)))
        machines += [ranks] if agreed else [[rank] for rank in ranks]
    return machines

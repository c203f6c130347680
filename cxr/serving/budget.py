"""What a server holds and works on at once, so that its memory stays bounded however much is sent to it.

Bodies of requests take room while they are in memory (`Room`), and large pictures take turns at being decoded
(`Turns`). Whoever finds no room or turn waits, with few others and not for long, and is then told to come back
(`OverloadedError`, status 429).

Of bodies, no more than `REQUESTS` x `SMALL_BYTES` and twice the largest request are in memory; as text and as what it
was parsed into, each is there up to three times. Pictures that are being decoded add up to 500 MB for the large ones
and 10 bytes a pixel for one other on each core (tests/cxr/imaging/test_memory.py).
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeVar

from cxr.errors import OverloadedError

WAIT_S = 10.0  # for room or a turn
REQUESTS = 200  # in memory at once; an ordinary one takes some hundredths of a second
SMALL_BYTES = 1_000_000  # of a body, that need no room: an X-ray as JPEG is answered whatever else is going on
WAITING = 3  # for a turn; each holds one of the threads of the server, of which there are four more than cores
_LATER = "send it again later"
_T = TypeVar("_T")


class Turns:
    """So many at once, and a few that wait for them. For threads.

    Args:
        at_once: how many have their turn at once.
        what: for the message of an error.
        waiting: how many requests may wait; None for any number, and for as long as it takes.
        seconds: how long each of them waits for a turn.
    """

    def __init__(self, at_once: int, what: str, waiting: int | None = None, seconds: float = WAIT_S):
        self.at_once, self.what, self.most, self.seconds = max(1, at_once), what, waiting, seconds
        self._busy, self._waiting = 0, list[object]()
        self._changed = threading.Condition()

    @contextmanager
    def taken(self, request: object = None) -> Iterator[None]:
        """A turn until the end of the context, for any of the pictures of a request.

        Raises:
            OverloadedError: too many requests are waiting, or this one has waited for too long.
        """
        with self._changed:
            if not self._is_free():
                self._wait(request)
            self._busy += 1
        try:
            yield
        finally:
            with self._changed:
                self._busy -= 1
                self._changed.notify()

    def _is_free(self) -> bool:
        return self._busy < self.at_once

    def _wait(self, request: object) -> None:
        others = {id(one) for one in self._waiting if one is not request}
        if self.most is not None and len(others) >= self.most:
            raise OverloadedError(f"too many {self.what} at once; {_LATER}")
        self._waiting.append(request)
        try:
            if not self._changed.wait_for(self._is_free, None if self.most is None else self.seconds):
                raise OverloadedError(f"other {self.what} have taken more than {self.seconds:g} s; {_LATER}")
        finally:
            self._waiting.remove(request)


class Cores:
    """The cores that decoding and the network share. For threads.

    Two calls of a network at once, of one thread each, do more than one call after the other on two threads: 4.8 ms an
    image and not 6.0 for EfficientNet-Lite0 at 224 pixels, 89 ms and not 104 for EfficientNetV2-S at 384. A single call
    takes longer by itself.

    Args:
        number: how many there are.
    """

    def __init__(self, number: int):
        self.number = self._free = max(1, number)
        self._waiting = 0
        self._changed = threading.Condition()

    @contextmanager
    def one(self) -> Iterator[None]:
        """One core until the end of the context."""
        with self._taken(1):
            yield

    @contextmanager
    def all_or_one(self) -> Iterator[int]:
        """Every core if nobody else wants one, or else one, until the end of the context; yields how many."""
        with self._taken(self.number) as taken:
            yield taken

    @contextmanager
    def _taken(self, most: int) -> Iterator[int]:
        with self._changed:
            self._waiting += 1
            try:
                self._changed.wait_for(lambda: self._free)
            finally:
                self._waiting -= 1
            taken = most if most <= self._free and not self._waiting else 1
            self._free -= taken
        try:
            yield taken
        finally:
            with self._changed:
                self._free += taken
                self._changed.notify(taken)


class Room:
    """Memory for the bodies of requests. For one event loop.

    Args:
        limit: bytes of all bodies together, the first `SMALL_BYTES` of each aside; no request may be larger.
        requests: how many may be in memory at once.
        seconds: how long a request waits for room.
    """

    def __init__(self, limit: int, requests: int = REQUESTS, seconds: float = WAIT_S):
        self.limit, self.requests, self.seconds = limit, requests, seconds
        self._inside = self._taken = 0
        self._changed = asyncio.Condition()
        self._leaving = set[asyncio.Task[None]]()  # asyncio itself keeps no task alive

    @asynccontextmanager
    async def entered(self) -> AsyncIterator["Place"]:
        """A place for one request, from its first byte until it is given up and its work is done, if there is any.

        Raises:
            OverloadedError: all places are taken.
        """
        if self._inside >= self.requests:
            raise OverloadedError(f"more than {self.requests} requests at once; {_LATER}")
        self._inside += 1
        place = Place(self)
        try:
            yield place
        finally:
            leaving = asyncio.create_task(self._leave(place))
            self._leaving.add(leaving)
            leaving.add_done_callback(self._leaving.discard)
            if place.work is None or place.work.done():
                await leaving

    async def take(self, size: int) -> None:
        """Wait until there is room for so many bytes, and take it."""
        async with self._changed:
            try:
                async with asyncio.timeout(self.seconds):
                    await self._changed.wait_for(lambda: self._taken + size <= self.limit)
            except TimeoutError:
                raise OverloadedError(
                    f"other requests have taken all {self.limit:,} bytes for more than {self.seconds:g} s; {_LATER}"
                ) from None
            self._taken += size

    async def _leave(self, place: "Place") -> None:
        if place.work is not None:
            await asyncio.wait([place.work])
        self._inside -= 1
        if place.held:
            async with self._changed:
                self._taken -= place.held
                self._changed.notify_all()


class Place:
    """The room of one request.

    Attributes:
        held: bytes that it has taken.
        work: what its body is needed for.
    """

    def __init__(self, room: Room):
        self._room, self.held = room, 0
        self.work: asyncio.Future[Any] | None = None

    async def done(self, work: Callable[..., _T], *arguments: Any) -> _T:
        """The result of `work` in a thread.

        No thread can be stopped: the place is kept until it ends, though nobody may be waiting for it any longer.
        """
        self.work = asyncio.ensure_future(asyncio.to_thread(work, *arguments))
        return await asyncio.shield(self.work)

    async def received(self, size: int, most: int) -> None:
        """Call it when `size` bytes of a body of at most `most` have come, before more are read.

        A body that turns out not to be small takes the room for all of it at once, so that no two wait for each other.
        Until then it holds nothing: who sends little and slowly keeps nobody waiting.
        """
        if size > SMALL_BYTES and not self.held:
            wanted = min(max(most - SMALL_BYTES, 1), self._room.limit)
            await self._room.take(wanted)
            self.held = wanted

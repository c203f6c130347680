"""What is held and worked on at once is bounded; whoever finds no room or turn is told to come back."""

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from cxr.errors import OverloadedError
from cxr.serving import budget
from cxr.serving import service as module
from cxr.serving.budget import SMALL_BYTES, Cores, Room, Turns
from cxr.serving.service import Service
from tests.helpers import png

MB = 1_000_000


def test_turns_are_bounded_and_few_wait_for_them():
    turns, go_on, began = Turns(1, "pictures", waiting=2), threading.Event(), threading.Semaphore(0)

    def work(request):
        with turns.taken(request):
            began.release()
            assert go_on.wait(30)

    with ThreadPoolExecutor(6) as pool:
        first = pool.submit(work, object())
        assert began.acquire(timeout=30)
        many = object()
        waiting = [pool.submit(work, many) for _ in range(3)] + [pool.submit(work, object())]
        while len(turns._waiting) < 4:
            time.sleep(0.01)
        try:
            with pytest.raises(OverloadedError, match="too many pictures at once; send it again later"):
                work(object())
            assert not began.acquire(timeout=0.1)
        finally:
            go_on.set()
        assert [one.result(30) for one in (first, *waiting)] == [None] * 5
    with turns.taken():
        pass


def test_a_call_alone_has_every_core_and_calls_together_one_each():
    cores, go_on, began = Cores(3), threading.Event(), threading.Semaphore(0)
    with cores.all_or_one() as alone:
        assert alone == 3

    def decode():
        with cores.one():
            began.release()
            assert go_on.wait(30)

    with ThreadPoolExecutor(5) as pool:
        decoding = [pool.submit(decode) for _ in range(2)]
        assert all(began.acquire(timeout=30) for _ in decoding)
        try:
            with cores.all_or_one() as beside_others:
                assert beside_others == 1
                waiting = [pool.submit(decode) for _ in range(3)]
                assert not began.acquire(timeout=0.1), "more at once than there are cores"
        finally:
            go_on.set()
        assert [one.result(30) for one in (*decoding, *waiting)] == [None] * 5
    with cores.all_or_one() as alone_again:
        assert alone_again == 3


def test_who_takes_every_core_leaves_one_to_each_that_waits():
    cores = Cores(2)
    kept = [cores.all_or_one() for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:
        with cores.all_or_one():
            calls = [pool.submit(one.__enter__) for one in kept]
            while cores._waiting < 2:
                time.sleep(0.01)
        assert [call.result(30) for call in calls] == [1, 1]


def test_a_turn_that_does_not_come_is_told():
    turns = Turns(1, "pictures", waiting=1, seconds=0.05)
    late = "other pictures have taken more than 0.05 s"
    with turns.taken(), pytest.raises(OverloadedError, match=late), turns.taken():
        pass
    with turns.taken():
        pass


def test_without_a_bound_everybody_gets_a_turn():
    """Scoring of many files has no caller who would come back."""
    turns = Turns(1, "pictures", seconds=0.01)

    def work(_):
        with turns.taken(object()):
            time.sleep(0.03)
        return 1

    with ThreadPoolExecutor(12) as pool:
        assert sum(pool.map(work, range(12))) == 12


def test_large_pictures_beyond_the_bound_are_refused_and_small_ones_answered(served, monkeypatch):
    monkeypatch.setattr(module, "_LARGE", 10_000)
    service = Service(served.folder, threads=2, waiting=1)
    rng = np.random.default_rng(0)
    large, small = (png(rng.integers(0, 256, (side, side), dtype=np.uint8)) for side in (120, 90))
    go_on, plain, began = threading.Event(), module.ImageReader.read, threading.Semaphore(0)

    def slow(reader, data):
        image = plain(reader, data)
        if data == large:
            began.release()
            assert go_on.wait(30)
        return image

    monkeypatch.setattr(module.ImageReader, "read", slow)
    with ThreadPoolExecutor(4) as pool:
        answers = [pool.submit(service.answer, [large] * count) for count in (1, 3)]
        assert began.acquire(timeout=30)
        while len(service._cores_for_large._waiting) < 2:
            time.sleep(0.01)
        try:
            with pytest.raises(OverloadedError, match="too many pictures of more than 16 megapixels"):
                service.answer([large])
            assert len(service.answer([small])) == 1
        finally:
            go_on.set()
        assert sorted(len(one.result(30)) for one in answers) == [1, 3]


def test_bodies_take_room_and_give_it_back():
    async def story():
        room = Room(10 * MB, seconds=0.05)
        async with room.entered() as first, room.entered() as second, room.entered() as small:
            await first.received(SMALL_BYTES, 9 * MB)
            assert room._taken == 0  # who sends slowly holds nothing
            await first.received(SMALL_BYTES + 1, 9 * MB)
            await first.received(9 * MB, 9 * MB)
            assert room._taken == first.held == 8 * MB
            await small.received(SMALL_BYTES, SMALL_BYTES)
            with pytest.raises(OverloadedError, match="other requests have taken all 10,000,000 bytes"):
                await second.received(2 * MB, 5 * MB)
        assert room._taken == 0
        async with room.entered() as largest:  # none is too large to come in
            await largest.received(2 * MB, 500 * MB)
            assert room._taken == 10 * MB

    asyncio.run(story())


def test_a_request_waits_for_room():
    async def story():
        room, order = Room(10 * MB), []

        async def one(name, seconds):
            async with room.entered() as place:
                await place.received(2 * MB, 9 * MB)
                order.append(name)
                await asyncio.sleep(seconds)

        await asyncio.gather(one("first", 0.05), one("second", 0), one("third", 0))
        assert order == ["first", "second", "third"] and room._taken == 0

    asyncio.run(story())


def test_a_request_that_is_given_up_keeps_its_room_until_its_thread_ends():
    """The thread still holds the body: with its room given away, memory would grow with every request in time out."""

    async def story():
        room, began, go_on = Room(10 * MB, requests=1, seconds=0.05), threading.Event(), threading.Event()

        def work():
            began.set()
            assert go_on.wait(30)

        async def request():
            async with room.entered() as place:
                await place.received(2 * MB, 9 * MB)
                await place.done(work)

        with pytest.raises(TimeoutError):
            await asyncio.wait_for(request(), 1.0)
        assert began.is_set() and room._taken == 8 * MB
        with pytest.raises(OverloadedError, match="more than 1 requests at once"):
            async with room.entered():
                pass
        go_on.set()
        while room._taken:
            await asyncio.sleep(0.01)
        async with room.entered() as place:
            assert await place.done(lambda: 7) == 7

    asyncio.run(asyncio.wait_for(story(), 30))


def test_requests_are_counted():
    async def story():
        room = Room(MB, requests=2)
        async with room.entered(), room.entered():
            with pytest.raises(OverloadedError, match="more than 2 requests at once"):
                async with room.entered():
                    pass
        async with room.entered():
            pass

    asyncio.run(story())


def test_large_pictures_leave_threads_of_the_server_to_others():
    """MLflow answers in the default threads of asyncio: four more than cores, of which half decode large pictures."""
    for cores in (1, 2, 8):
        assert max(1, cores // 2) + budget.WAITING < cores + 4

"""The hub's own promises: nobody is deafened by another, nothing is left behind."""

import asyncio
from collections.abc import Callable
from functools import partial
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoin.api import batches
from rejoin.api.batches import Batch, joined
from rejoin.shared import keys
from tests.support import tails
from tests.support.tails import MESSAGE_ID, MemoryHub, Socket, opened, text, turns

OTHER_ID = MESSAGE_ID[:-1] + "1"
RUBBISH = [b"", b"\n", b"rubbish", b"1 2 3 0", b"1 2\nevent", b"a b c d\nevent", b"1 0 0\n\xff"]


class Deaf:
    """A follower that fails at whatever it is offered."""

    def offer(self, batch: Batch) -> None:
        raise ZeroDivisionError

    def doubt(self) -> None:
        """It never had anything."""


@pytest.mark.parametrize("rubbish", RUBBISH)
async def test_rubbish_on_a_channel_sends_its_tails_to_the_log_and_deafens_nobody(
    hub: MemoryHub, socket: Socket, rubbish: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with opened(hub, socket) as tail:
        await turns()
        hub.gather(True)
        hub.receive(keys.live(MESSAGE_ID).encode(), rubbish)
        hub.write(text(1, 0))
        hub.gather(False)
        await turns()
        assert (tail.live, hub.looks) == (True, 2)
        hub.write(text(1, 1))
    assert socket.events == text(1, 0).data + text(1, 1).data
    assert MESSAGE_ID in caplog.text


async def test_what_fails_in_one_channel_does_not_cost_the_others_their_events(
    hub: MemoryHub, socket: Socket
) -> None:
    deaf = Deaf()
    hub.join(deaf, OTHER_ID)
    with opened(hub, socket) as tail:
        await turns()
        for n in range(3):
            hub.gather(True)
            hub.receive(keys.live(OTHER_ID).encode(), tails.payload([text(1, n)]))
            hub.write(text(1, n))
            hub.gather(False)
        assert (tail.live, hub.looks) == (True, 1)
    assert socket.events == tails.joined([text(1, n) for n in range(3)])
    hub.leave(deaf, OTHER_ID)


async def test_a_task_that_breaks_is_logged(
    hub: MemoryHub, caplog: pytest.LogCaptureFixture
) -> None:
    async def breaks() -> None:
        raise ZeroDivisionError

    hub.spawn(breaks())
    await turns(3)
    assert hub.spawned() == 1
    assert "ZeroDivisionError" in caplog.text


async def test_a_hub_that_closes_ends_tasks_that_its_ending_tasks_began() -> None:
    hub = MemoryHub()

    async def breeds() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            hub.spawn(asyncio.sleep(3600))

    hub.spawn(breeds())
    await turns(2)
    async with asyncio.timeout(5):
        await hub.__aexit__()
    assert hub.spawned() == 0


async def test_a_watch_wakes_on_news_on_doubt_and_on_drain(hub: MemoryHub) -> None:
    async with hub.watch(MESSAGE_ID) as watch:
        news: Callable[[], object] = partial(hub.write, text(1, 0))
        for wake in (news, hub.restored, hub.drain):
            waiting = asyncio.create_task(watch.changed(60))
            await turns(3)
            assert not waiting.done()
            wake()
            async with asyncio.timeout(5):
                await waiting


async def test_news_before_the_wait_end_it_at_once(hub: MemoryHub) -> None:
    async with hub.watch(MESSAGE_ID) as watch:
        hub.write(text(1, 0))
        async with asyncio.timeout(5):
            await watch.changed(60)


async def test_a_watch_that_drains_lets_others_run(hub: MemoryHub) -> None:
    async with hub.watch(MESSAGE_ID) as watch:
        hub.drain()
        ran = asyncio.create_task(asyncio.sleep(0))
        for _ in range(3):
            await watch.changed(60)
        assert ran.done()


@given(
    counts=st.lists(st.integers(1, 5), min_size=1, max_size=20),
    jumps=st.lists(st.sampled_from([0, 0, 0, 1]), min_size=20, max_size=20),
    sizes=st.lists(st.integers(1, 200), min_size=100, max_size=100),
)
def test_joined_batches_hold_the_same_events_without_holes(
    counts: list[int], jumps: list[int], sizes: list[int]
) -> None:
    payloads, frames, number = [], [], 0
    for count, jump in zip(counts, jumps, strict=False):
        number += jump
        batch = [text(1, number + n, sizes[number + n]) for n in range(count)]
        number += count
        frames += batch
        payloads.append(tails.payload(batch))
    with patch.object(batches, "JOINED_BYTES", 500):
        made = joined(payloads)
    assert b"".join(batch.frames for batch in made) == tails.joined(frames)
    for one in made:
        own = [frame for frame in frames if one.first <= frame.id[1] <= one.last]
        assert tails.joined(own) == one.frames == one.body["body"]
        assert len(own) == one.last - one.first + 1
        assert len(one.frames) <= 500 or len(own) <= 5  # one append stays whole


def test_an_attempt_is_not_joined_with_the_next_one() -> None:
    made = joined([tails.payload([text(1, 0)]), tails.payload([text(2, 1)])])
    assert [(batch.attempt, batch.first, batch.last) for batch in made] == [(1, 0, 0), (2, 1, 1)]


def test_a_batch_with_the_end_is_the_last_of_its_response() -> None:
    one = joined([tails.payload([text(1, 0)]), tails.payload([tails.done(1, 1)])])
    assert [(batch.ended, batch.body["more_body"]) for batch in one] == [(True, False)]

"""The pulse of the tails: comments in a silence, the look before them, the end of a long life."""

import asyncio
from collections.abc import Sequence
from typing import cast

import pytest
from redis.asyncio import Redis

from rejoin.api import beats as beats_module
from rejoin.api.beats import Beats
from rejoin.shared import log
from rejoin.shared.errors import LogUnavailable
from rejoin.shared.ids import EventId
from tests.support.messages import until_true
from tests.support.tails import MemoryHub, Socket, opened, text, turns

NEWEST = EventId(1, 4)


class Quiet:
    """A tail that only counts what the pulse does to it."""

    def __init__(self, beats: Beats, message_id: str = "m", *, live: bool = True) -> None:
        self.message_id = message_id
        self.live = live
        self.beat = self.born = beats.now
        self.position: EventId | None = NEWEST
        self.doubts = self.comments = self.parts = 0
        self._beats = beats
        beats.tails.add(self)

    def doubt(self) -> None:
        self.doubts += 1

    def comment(self) -> None:
        self.comments += 1
        self.beat = self._beats.now

    def part(self) -> None:
        self.parts += 1


class Ends:
    """What `newest_of` tells, how often it was asked, and what keeps it from answering."""

    def __init__(self) -> None:
        self.newest: EventId | None = NEWEST
        self.known = True
        self.asked: list[Sequence[str]] = []
        self.fails: list[Exception] = []
        self.hangs = False
        self.meanwhile: Quiet | None = None

    async def newest_of(
        self, _: object, message_ids: Sequence[str]
    ) -> list[tuple[bool, EventId | None]]:
        self.asked.append(message_ids)
        if self.hangs:
            await asyncio.Event().wait()
        if self.fails:
            raise self.fails.pop()
        if self.meanwhile is not None:
            self.meanwhile.position = EventId(1, 99)
        return [(self.known, self.newest) for _ in message_ids]


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch) -> Ends:
    made = Ends()
    monkeypatch.setattr(log, "newest_of", made.newest_of)
    monkeypatch.setattr(beats_module, "_LEAST_LOOK_SECONDS", 0.02)
    monkeypatch.setattr(beats_module, "_AGAIN_SECONDS", 0)
    return made


@pytest.fixture
async def beats() -> Beats:
    return Beats(cast(Redis, None), keepalive_seconds=0.03, max_stream_seconds=3600)


async def beaten(beats: Beats, times: int) -> None:
    """Beat so often, without the waits in between."""
    for _ in range(times):
        beats.now += 1
        await beats._beat()


async def test_a_comment_comes_after_two_beats_of_silence(beats: Beats, ends: Ends) -> None:
    silent, spoken = Quiet(beats), Quiet(beats)
    await beaten(beats, 1)
    spoken.beat = beats.now
    await beaten(beats, 1)
    assert (silent.comments, spoken.comments) == (1, 0)
    await beaten(beats, 1)
    assert (silent.comments, spoken.comments) == (1, 1)
    await beaten(beats, 6)
    assert (silent.comments, spoken.comments) == (4, 4)


async def test_silent_tails_are_compared_with_their_logs_in_one_look(
    beats: Beats, ends: Ends
) -> None:
    tails = [Quiet(beats, f"m{n % 10}") for n in range(30)]
    await beaten(beats, 2)
    assert [sorted(asked) for asked in ends.asked] == [[f"m{n}" for n in range(10)]]
    assert {(tail.doubts, tail.comments) for tail in tails} == {(0, 1)}


@pytest.mark.parametrize(
    ("known", "newest"), [(True, EventId(1, 5)), (True, None), (True, EventId(1, 3)), (False, None)]
)
async def test_a_tail_that_is_not_at_its_logs_end_goes_back_to_the_log(
    beats: Beats, ends: Ends, known: bool, newest: EventId | None
) -> None:
    tail = Quiet(beats)
    ends.known, ends.newest = known, newest
    await beaten(beats, 2)
    assert (tail.doubts, tail.comments) == (1, 1)


async def test_a_tail_that_moved_during_the_look_is_left_alone(beats: Beats, ends: Ends) -> None:
    tail = Quiet(beats)
    ends.meanwhile, ends.newest = tail, EventId(1, 50)
    await beaten(beats, 2)
    assert tail.doubts == 0


async def test_a_tail_that_reads_the_log_is_not_compared_but_hears_comments(
    beats: Beats, ends: Ends
) -> None:
    tail = Quiet(beats, live=False)
    await beaten(beats, 2)
    assert (ends.asked, tail.doubts, tail.comments) == ([], 0, 1)


@pytest.mark.parametrize("count", [1, 1700])
async def test_comments_come_also_while_redis_is_away(beats: Beats, ends: Ends, count: int) -> None:
    tails = [Quiet(beats, f"m{n}") for n in range(count)]
    ends.fails = [LogUnavailable("away")]
    await beaten(beats, 2)
    assert {tail.comments for tail in tails} == {1}
    assert len(ends.asked) == 1  # the others are not asked about in vain


async def test_comments_come_also_while_redis_stalls(beats: Beats, ends: Ends) -> None:
    tails = [Quiet(beats, f"m{n}") for n in range(1200)]
    ends.hangs = True
    async with asyncio.timeout(5):
        await beaten(beats, 2)
    assert {tail.comments for tail in tails} == {1}


@pytest.mark.parametrize("live", [True, False])
async def test_a_stream_that_lived_long_enough_is_parted(ends: Ends, live: bool) -> None:
    beats = Beats(cast(Redis, None), keepalive_seconds=3, max_stream_seconds=10)
    tail = Quiet(beats, live=live)
    await beaten(beats, 10)
    assert tail.parts == 0
    await beaten(beats, 1)
    assert tail.parts == 1
    late = Quiet(beats)
    await beaten(beats, 10)
    assert (tail.parts, late.parts) == (11, 0)


async def test_a_life_shorter_than_a_keep_alive_is_kept_to() -> None:
    beats = Beats(cast(Redis, None), keepalive_seconds=15, max_stream_seconds=0.02)
    tail = Quiet(beats)
    running = asyncio.create_task(beats.run())
    await until_true(lambda: bool(tail.parts))
    running.cancel()
    assert beats.now <= 4


async def test_a_beat_that_fails_is_followed_by_the_next(
    beats: Beats, ends: Ends, caplog: pytest.LogCaptureFixture
) -> None:
    tail = Quiet(beats)
    ends.fails = [ValueError("unexpected"), ValueError("unexpected")]
    running = asyncio.create_task(beats.run())
    await until_true(lambda: bool(tail.comments))
    running.cancel()
    assert caplog.text.count("ValueError: unexpected") == 2


async def test_what_a_reconnect_may_have_lost_is_looked_for_until_redis_tells(
    beats: Beats, ends: Ends
) -> None:
    live, reads = Quiet(beats), Quiet(beats, live=False)
    ends.newest = EventId(1, 5)
    ends.fails = [LogUnavailable("loading") for _ in range(5)]
    repairing = asyncio.create_task(beats.repair())
    beats.look_again()
    await turns()
    assert (live.doubts, reads.doubts) == (1, 1)
    assert len(ends.asked) == 6
    await turns()
    assert len(ends.asked) == 6
    repairing.cancel()


async def test_a_repair_that_fails_is_not_the_last_one(
    beats: Beats, ends: Ends, caplog: pytest.LogCaptureFixture
) -> None:
    tail = Quiet(beats)
    ends.newest = EventId(1, 5)
    ends.fails = [ValueError("unexpected")]
    repairing = asyncio.create_task(beats.repair())
    beats.look_again()
    await turns()
    assert "ValueError: unexpected" in caplog.text
    beats.look_again()
    await turns()
    assert tail.doubts == 1
    repairing.cancel()


async def test_a_lost_publish_is_repaired_by_the_check_before_a_comment(
    hub: MemoryHub, socket: Socket
) -> None:
    with opened(hub, socket):
        await turns()
        hub.append(text(1, 0))
        await beaten(hub.beats, 1)
        await turns()
        assert socket.events == b""
        await beaten(hub.beats, 1)
        await turns()
    assert socket.events == text(1, 0).data


async def test_a_stream_of_a_client_that_reads_the_log_for_ever_has_an_end_too(
    hub: MemoryHub, socket: Socket
) -> None:
    hub.hold = asyncio.Event()
    hub.beats._most_beats = 3
    with opened(hub, socket):
        await turns()
        await beaten(hub.beats, 4)
        assert not socket.ended
        await beaten(hub.beats, 1)
        assert socket.ended

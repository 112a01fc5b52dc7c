"""A worker is told to leave: what runs may finish for a while, and the rest goes on elsewhere."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from tests.faults.conftest import SETTINGS
from tests.support.caller import Caller, Stopwatch, assert_whole_log, caller, until, visible_text
from tests.support.processes import Process, Stack
from tests.support.sse_reader import SseFrame, SseReader, open_tail

TEXT = "a deploy comes in the midst of this answer and its reader sees nothing of it at all " * 3
WORDS = len(TEXT.split())
LONG_LEASE = {"REJOIN_LEASE_SECONDS": "60"}  # whoever waits it out is too late


@pytest.fixture
async def api(idle_stack: Stack) -> AsyncIterator[Caller]:
    async with caller(idle_stack.url) as made:
        yield made


async def leaving(worker: Process) -> None:
    """SIGTERM it, and wait until it takes no more messages."""
    worker.mark()
    worker.signal_stop()
    await says(worker, "to finish")


async def says(worker: Process, words: str) -> None:
    async def said() -> bool:
        return words in worker.said(worker.marked)

    await until(said)


async def exited(worker: Process, *, within: float) -> None:
    assert await asyncio.to_thread(worker.wait, within) == 0


def resets(frames: list[SseFrame]) -> int:
    return sum(frame.event == "reset" for frame in frames)


def has_resets(tail: SseReader, count: int) -> Callable[[], bool]:
    return lambda: resets(tail.frames) >= count


def assert_exact(frames: list[SseFrame], *, attempts: int) -> None:
    assert_whole_log(frames)
    assert visible_text(frames) == TEXT
    assert frames[-1].data == {"finish_reason": "stop", "text_chars": len(TEXT)}
    assert resets(frames) == attempts - 1


async def test_what_runs_finishes_within_the_grace(idle_stack: Stack, api: Caller) -> None:
    """Its lease is kept for longer than it lasts: the other worker does not take the message."""
    leaver = idle_stack.new_worker(REJOIN_DRAIN_SECONDS="30").start()
    async with api.tailed(TEXT, rate=WORDS / 4) as (message_id, tail):
        await tail.read_n(4)
        idle_stack.new_worker().start()
        await leaving(leaver)
        frames = await tail.read_until_end(within=20)
    assert_exact(frames, attempts=1)
    await exited(leaver, within=5)
    seen = await api.snapshot(message_id)
    assert (seen["status"], seen["attempt"], len(seen["attempts"])) == ("done", 1, 1)


async def test_a_worker_that_leaves_starts_nothing_more(idle_stack: Stack, api: Caller) -> None:
    leaver = idle_stack.new_worker(REJOIN_DRAIN_SECONDS="30").start()
    running = await api.accepted(TEXT, rate=WORDS / 2)
    async with open_tail(api.events(running)) as tail:
        await tail.read_n(4)
        await leaving(leaver)
        late = await api.accepted("too late for this one")
        assert_exact(await tail.read_until_end(within=20), attempts=1)
    await exited(leaver, within=5)
    assert (await api.snapshot(late))["status"] == "queued"
    idle_stack.new_worker().start()
    frames = await api.log(late)
    assert visible_text(frames) == "too late for this one"
    assert resets(frames) == 0


async def test_beyond_the_grace_another_worker_goes_on_at_once(
    idle_stack: Stack, api: Caller
) -> None:
    leaver = idle_stack.new_worker(REJOIN_DRAIN_SECONDS="0.5", **LONG_LEASE).start()
    async with api.tailed(TEXT, rate=WORDS / 4) as (_, tail):
        await tail.read_n(4)
        idle_stack.new_worker(**LONG_LEASE).start()
        await leaving(leaver)
        await exited(leaver, within=10)
        watch = Stopwatch()
        await tail.until(has_resets(tail, 1))
        assert watch.seconds < 2  # a second, and the machine's own
        frames = await tail.read_until_end(within=20)
    assert_exact(frames, attempts=2)


async def test_a_second_sigterm_hurries(idle_stack: Stack, api: Caller) -> None:
    leaver = idle_stack.new_worker(REJOIN_DRAIN_SECONDS="300", **LONG_LEASE).start()
    async with api.tailed(TEXT, rate=WORDS / 5) as (_, tail):
        await tail.read_n(4)
        idle_stack.new_worker(**LONG_LEASE).start()
        await leaving(leaver)
        count = len(tail.frames)
        await tail.read_n(count + 2)
        assert leaver.running
        assert resets(tail.frames) == 0
        leaver.signal_stop()
        await exited(leaver, within=3)
        frames = await tail.read_until_end(within=20)
    assert_exact(frames, attempts=2)


async def test_a_worker_with_nothing_to_do_leaves_at_once(idle_stack: Stack) -> None:
    leaver = idle_stack.new_worker(REJOIN_DRAIN_SECONDS="300").start()
    leaver.signal_stop()
    await exited(leaver, within=5)


async def test_a_worker_that_leaves_still_hears_a_cancel(idle_stack: Stack, api: Caller) -> None:
    leaver = idle_stack.new_worker(REJOIN_DRAIN_SECONDS="300").start()
    async with api.tailed(TEXT, rate=1) as (message_id, tail):
        await tail.read_n(2)
        await leaving(leaver)
        assert (await api.cancel(message_id)).status_code == 202
        frames = await tail.read_until_end(within=3)
    assert frames[-1].data["finish_reason"] == "cancelled"
    assert resets(frames) == 0
    await exited(leaver, within=5)


async def test_a_worker_killed_in_its_grace_is_followed_as_any_other(
    idle_stack: Stack, api: Caller
) -> None:
    leaver = idle_stack.new_worker(REJOIN_DRAIN_SECONDS="300").start()
    async with api.tailed(TEXT, rate=WORDS / 4) as (_, tail):
        await tail.read_n(4)
        idle_stack.new_worker().start()
        await leaving(leaver)
        leaver.kill()
        frames = await tail.read_until_end(within=20)
    assert_exact(frames, attempts=2)


async def test_many_deploys_use_up_no_try(idle_stack: Stack, api: Caller) -> None:
    deploys = 6
    settings = {"REJOIN_MAX_ATTEMPTS": "2", "REJOIN_DRAIN_SECONDS": "0.1", **SETTINGS}
    worker = idle_stack.new_worker(**settings).start()
    async with api.tailed(TEXT, rate=WORDS / 8) as (_, tail):
        for deploy in range(1, deploys + 1):
            following = idle_stack.new_worker(**settings)
            await asyncio.to_thread(following.start)
            worker.signal_stop()
            await tail.until(has_resets(tail, deploy))
            await exited(worker, within=10)
            worker = following
        frames = await tail.read_until_end(within=30)
    assert_exact(frames, attempts=deploys + 1)

"""A worker dies, stalls or leaves in mid-stream: another goes on, and the text is exact."""

import asyncio
from functools import partial

import pytest

from tests.support.caller import Caller, Stopwatch, assert_whole_log, caller, visible_text
from tests.support.processes import Stack, Worker
from tests.support.sse_reader import SseFrame, SseReader, open_tail

TEXT = "one worker begins this answer and another one ends it " * 4


@pytest.fixture
def two_workers(stack: Stack) -> Stack:
    """The stack with a second worker: either may take a message."""
    stack.new_worker().start()
    return stack


def resets(frames: list[SseFrame]) -> list[SseFrame]:
    return [frame for frame in frames if frame.event == "reset"]


async def runner_of(stack: Stack, api: Caller, message_id: str) -> Worker:
    """The worker that runs a message right now."""
    ran_by = (await api.snapshot(message_id))["attempts"][-1]["worker"]
    (worker,) = (worker for worker in stack.workers if worker.worker_id == ran_by)
    return worker


async def assert_taken_over(api: Caller, message_id: str, frames: list[SseFrame]) -> None:
    assert_whole_log(frames)
    assert visible_text(frames) == TEXT
    began = resets(frames)
    assert began
    assert set(began[0].data) == {"after", "attempt", "model", "reason"}
    assert began[0].data["after"] is None  # no step had ended
    assert frames[-1].data == {"finish_reason": "stop", "text_chars": len(TEXT)}
    assert frames[-2].event == "usage"
    assert frames[-2].data["estimated"] is True  # the lost attempt's own count went with it
    assert frames[-2].data["output_tokens"] > len(TEXT.split())
    assert [f.raw for f in await api.log(message_id)] == [f.raw for f in frames]
    seen = await api.snapshot(message_id)
    assert (seen["status"], seen["text"]) == ("done", TEXT)
    assert seen["attempt"] == began[-1].data["attempt"]
    assert len(seen["attempts"]) == 1 + len(began)
    assert seen["last_event_id"] == frames[-1].id


async def test_a_killed_workers_message_is_taken_over(two_workers: Stack, api: Caller) -> None:
    async with api.tailed(TEXT, rate=40) as (message_id, tail):
        await tail.read_n(6)
        (await runner_of(two_workers, api, message_id)).kill()
        frames = await tail.read_until_end(within=20)
    await assert_taken_over(api, message_id, frames)


async def test_a_killed_workers_message_is_gone_on_with_where_that_is_asked_for(
    two_workers: Stack, api: Caller
) -> None:
    async with api.tailed(TEXT, rate=40, recover="continue") as (message_id, tail):
        await tail.read_n(6)
        (await runner_of(two_workers, api, message_id)).kill()
        frames = await tail.read_until_end(within=20)
    assert_whole_log(frames)
    (reset,) = resets(frames)
    assert reset.data["after"] == frames[frames.index(reset) - 1].id
    # Not a word is taken back, and none comes twice.
    assert "".join(frame.data["text"] for frame in frames if frame.event == "text") == TEXT
    assert frames[-1].data == {"finish_reason": "stop", "text_chars": len(TEXT)}
    assert (await api.snapshot(message_id))["text"] == TEXT


async def test_the_silence_is_no_longer_than_the_lease_and_a_second(
    two_workers: Stack, api: Caller
) -> None:
    async with api.tailed(TEXT, rate=20) as (message_id, tail):
        await tail.read_n(6)
        (await runner_of(two_workers, api, message_id)).kill()
        watch = Stopwatch()
        await tail.until(lambda: bool(resets(tail.frames)))
        assert watch.seconds < 2.5  # a lease of 1 s, 1 s, and the machine's own
    await api.cancel(message_id)


async def test_all_workers_killed_the_next_one_goes_on(stack: Stack, api: Caller) -> None:
    async with api.tailed(TEXT, rate=40) as (message_id, tail):
        await tail.read_n(6)
        stack.worker.kill()
        await tail.read_comments(2)
        stack.worker.start()
        frames = await tail.read_until_end(within=20)
    await assert_taken_over(api, message_id, frames)


async def test_a_worker_that_stalled_writes_nothing_more(two_workers: Stack, api: Caller) -> None:
    async with api.tailed(TEXT, rate=20) as (message_id, tail):
        await tail.read_n(6)
        stalled = await runner_of(two_workers, api, message_id)
        stalled.pause()
        await tail.until(lambda: bool(resets(tail.frames)))
        count = len(tail.frames)
        stalled.resume()  # it wakes in the middle of the other's attempt
        await tail.read_n(count + 5)
        frames = await tail.read_until_end(within=20)
    await assert_taken_over(api, message_id, frames)
    assert len(resets(frames)) == 1
    assert visible_text(await api.log(await api.accepted("both live"))) == "both live"


async def test_a_worker_that_leaves_on_sigterm_hands_over(two_workers: Stack, api: Caller) -> None:
    async with api.tailed(TEXT, rate=20) as (message_id, tail):
        await tail.read_n(6)
        leaving = await runner_of(two_workers, api, message_id)
        leaving.signal_stop()
        frames = await tail.read_until_end(within=20)
    assert_whole_log(frames)
    assert visible_text(frames) == TEXT
    await asyncio.to_thread(leaving.wait)


async def test_a_position_of_the_lost_attempt_gets_the_next_one(stack: Stack, api: Caller) -> None:
    async with api.tailed(TEXT, rate=40) as (message_id, tail):
        await tail.read_n(6)
        stack.worker.kill()
        stack.worker.start()
        whole = await tail.read_until_end(within=20)
    reset = next(n for n, frame in enumerate(whole) if frame.event == "reset")
    for position in (whole[reset - 1].id, "1-99999"):
        async with open_tail(api.events(message_id), last_event_id=position) as tail:
            rest = await tail.read_until_end()
        assert [f.raw for f in rest] == [f.raw for f in whole[reset:]]
    async with open_tail(api.events(message_id), last_event_id=whole[2].id) as tail:
        rest = await tail.read_until_end()
    assert [f.raw for f in rest] == [f.raw for f in whole[3:]]


async def test_many_messages_of_a_killed_worker_all_end_exactly(stack: Stack, api: Caller) -> None:
    texts = [f"message {n} of the worker that dies " * 3 for n in range(20)]
    ids = [await api.accepted(text, rate=20) for text in texts]
    tails = [asyncio.create_task(api.log(message_id, within=30)) for message_id in ids]
    async with open_tail(api.events(ids[-1])) as pace:
        await pace.read_n(4)
    stack.worker.kill()
    stack.new_worker().start()
    for text, frames in zip(texts, await asyncio.gather(*tails), strict=True):
        assert_whole_log(frames)
        assert visible_text(frames) == text


async def test_a_message_cancelled_while_its_worker_is_dead_ends_cancelled(
    stack: Stack, api: Caller
) -> None:
    async with api.tailed(TEXT, rate=40) as (message_id, tail):
        seen = visible_text(await tail.read_n(6))
        stack.worker.kill()
        assert (await api.cancel(message_id)).status_code == 202
        stack.worker.start()
        frames = await tail.read_until_end(within=20)
    assert_whole_log(frames)
    assert visible_text(frames).startswith(seen), "a cancel takes no text back"
    assert frames[-1].data["finish_reason"] == "cancelled"
    assert frames[-1].data["text_chars"] == len(visible_text(frames))


def begun(tail: SseReader, attempts: int) -> bool:
    """Whether so many attempts have begun."""
    return sum(frame.event in ("start", "reset") for frame in tail.frames) >= attempts


async def test_a_message_that_kills_every_worker_fails_at_last(idle_stack: Stack) -> None:
    async with caller(idle_stack.url) as api:
        worker = idle_stack.new_worker(REJOIN_MAX_ATTEMPTS="2", REJOIN_LEASE_SECONDS="0.5")
        async with api.tailed(TEXT, rate=5) as (message_id, tail):
            for attempt in (1, 2):
                worker.start()
                await tail.until(partial(begun, tail, attempt))
                count = len(tail.frames)
                await tail.read_n(count + 1)
                worker.kill()
            worker.start()
            frames = await tail.read_until_end(within=20)
        assert_whole_log(frames)
        assert (frames[-1].event, frames[-1].data["code"]) == ("failed", "attempts_exhausted")
        assert frames[-2].event == "usage"
        assert frames[-2].data["estimated"] is True
        seen = await api.snapshot(message_id)
        assert seen["status"] == "failed"
        assert seen["error"]["code"] == "attempts_exhausted"

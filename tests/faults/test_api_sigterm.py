"""SIGTERM to an API: open streams end in order, and their clients come back elsewhere."""

import asyncio
from contextlib import AsyncExitStack

import httpx
import pytest

from tests.support.caller import assert_whole_log, caller, visible_text
from tests.support.processes import Stack
from tests.support.sse_reader import RetryField, SseFrame, SseReader, open_tail

TEXT = "an answer longer than the life of the process that sends it " * 5


async def leave(url: str, after: int, ready: asyncio.Barrier) -> SseReader:
    """Read some events, tell that they are read, and read on to the end of the stream."""
    async with open_tail(url) as tail:
        await tail.read_n(after)
        await ready.wait()
        await tail.read_until_end(within=8)
    return tail


async def test_streams_end_with_a_retry_and_go_on_at_the_other_api(stack: Stack) -> None:
    other = stack.new_api().start()
    async with caller(stack.url) as api, caller(other.url) as elsewhere:
        message_id = await api.accepted(TEXT, rate=30)
        ready = asyncio.Barrier(13)
        leaving = [asyncio.create_task(leave(api.events(message_id), n, ready)) for n in range(12)]
        await asyncio.wait_for(ready.wait(), 10)
        stack.api.signal_stop()
        left = await asyncio.gather(*leaving)
        assert await asyncio.to_thread(stack.api.wait, 5) == 0
        for gone in left:
            assert not gone.saw_end
            assert len(gone.retries) == 2
            assert isinstance(gone.items[-1], RetryField)

        async def rest(position: str | None) -> list[SseFrame]:
            url = elsewhere.events(message_id)
            async with open_tail(url, last_event_id=position) as tail:
                return await tail.read_until_end()

        rests = await asyncio.gather(*(rest(gone.last_event_id) for gone in left))
        whole = await elsewhere.log(message_id)
    assert_whole_log(whole)
    assert visible_text(whole) == TEXT
    expected = b"".join(frame.raw for frame in whole)
    for gone, frames in zip(left, rests, strict=True):
        assert gone.log_bytes() + b"".join(frame.raw for frame in frames) == expected


async def test_clients_are_told_to_come_back_at_different_times(stack: Stack) -> None:
    async with caller(stack.url) as api:
        message_id = await api.accepted("wait " * 100, rate=5)
        ready = asyncio.Barrier(21)
        leaving = [asyncio.create_task(leave(api.events(message_id), 1, ready)) for _ in range(20)]
        await asyncio.wait_for(ready.wait(), 10)
        assert await asyncio.to_thread(stack.api.terminate, 5) == 0
        waits = {gone.retries[-1].milliseconds for gone in await asyncio.gather(*leaving)}
    assert len(waits) > 5


async def test_silent_streams_of_queued_messages_end_too(idle_stack: Stack) -> None:
    async with caller(idle_stack.url) as api:
        url = api.events(await api.accepted())
        async with open_tail(url) as tail:
            await tail.read_comments(1)
            assert await asyncio.to_thread(idle_stack.api.terminate, 5) == 0
            assert await tail.read_until_end() == []
            assert isinstance(tail.items[-1], RetryField)


@pytest.mark.parametrize("milliseconds", [30, 50, 60, 70])
async def test_streams_that_are_just_opening_end_too(idle_stack: Stack, milliseconds: int) -> None:
    """The signal meets them while they subscribe and read the log."""
    async with caller(idle_stack.url) as api:
        ids = [await api.accepted() for _ in range(60)]

        async def opened(message_id: str) -> None:
            async with AsyncExitStack() as ends:
                try:
                    tail = await ends.enter_async_context(open_tail(api.events(message_id)))
                except ConnectionError:
                    return  # it had closed its door: no answer had begun
                await tail.read_until_end()
            assert isinstance(tail.items[-1], RetryField)

        opening = [asyncio.create_task(opened(message_id)) for message_id in ids]
        await asyncio.sleep(milliseconds / 1000)
        assert await asyncio.to_thread(idle_stack.api.terminate, 5) == 0
        await asyncio.gather(*opening)


async def test_waiting_calls_do_not_hold_the_process_back(idle_stack: Stack) -> None:
    async with caller(idle_stack.url) as api:
        message_id = await api.accepted()
        waiting = [
            asyncio.create_task(api.http.get(f"/api/messages/{message_id}?wait=14")),
            asyncio.create_task(
                api.http.get(
                    f"/api/messages/{message_id}/events?wait=14",
                    headers={"Accept": "application/json"},
                )
            ),
        ]
        await asyncio.sleep(0.3)  # nothing outside tells that they wait
        assert await asyncio.to_thread(idle_stack.api.terminate, 5) == 0
        for answer in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(answer, httpx.Response), answer
            assert answer.status_code in (200, 503)


async def test_a_reader_that_does_not_read_does_not_hold_the_process_back(
    stack: Stack,
) -> None:
    async with caller(stack.url) as api:
        message_id = await api.accepted(("x" * 999 + " ") * 900)
        await api.snapshot(message_id, wait=10)
        async with open_tail(api.events(message_id)):
            assert await asyncio.to_thread(stack.api.terminate, 5) == 0


@pytest.mark.parametrize("redis_is", ["killed", "stalled"])
async def test_it_exits_in_time_while_redis_is_away(stack: Stack, redis_is: str) -> None:
    async with caller(stack.url) as api:
        url = api.events(await api.accepted("word " * 100, rate=5))
        async with open_tail(url) as tail:
            await tail.read_n(2)
            if redis_is == "killed":
                stack.redis.kill()
                assert await asyncio.to_thread(stack.api.terminate, 5) == 0
                stack.redis.start()
            else:
                with stack.redis.paused():
                    assert await asyncio.to_thread(stack.api.terminate, 5) == 0
            await tail.read_until_end()
            assert not tail.saw_end

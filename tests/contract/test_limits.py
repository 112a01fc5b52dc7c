"""Deadlines, the log's size, jobs at once, and how long what is stored lives."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.support.caller import (
    Caller,
    assert_whole_log,
    caller,
    until,
    visible_text,
)
from tests.support.processes import Stack, rejoin_stack
from tests.support.redis_server import redis_server
from tests.support.sse_reader import open_tail

TIGHT = {
    "REJOIN_MAX_LOG_BYTES": "3000",
    "REJOIN_MAX_JOBS": "2",
    "REJOIN_TIMEOUT_IDLE": "0.5",
    "REJOIN_TIMEOUT_TOTAL": "2",
    "REJOIN_LOG_TTL_SECONDS": "1",
}


@pytest.fixture(scope="module")
def module_tight_stack() -> Iterator[Stack]:
    """An API and a worker with small bounds."""
    with redis_server() as redis, rejoin_stack(redis, settings=TIGHT) as stack:
        yield stack


@pytest.fixture
async def tight(module_tight_stack: Stack) -> AsyncIterator[Caller]:
    """A caller of the API with small bounds."""
    async with caller(module_tight_stack.url) as speaker:
        yield speaker
    module_tight_stack.assert_no_traceback()


@pytest.mark.parametrize("rate", [0, 200])
async def test_a_log_that_is_full_ends_with_length(tight: Caller, rate: int) -> None:
    text = "words without an end " * 100
    frames = await tight.log(await tight.accepted(text, rate=rate))
    assert_whole_log(frames)
    said = visible_text(frames)
    assert 0 < len(said) < len(text)
    assert text.startswith(said)
    assert frames[-1].event == "done"
    assert frames[-1].data == {"finish_reason": "length", "text_chars": len(said)}
    assert frames[-2].event == "usage"


async def test_a_provider_that_falls_silent_times_out(tight: Caller) -> None:
    message_id = await tight.accepted("one two three", rate=0.5)
    frames = await tight.log(message_id)
    assert_whole_log(frames)
    code = frames[-1].data["code"]
    # It is tried again while the message has time left: that may run out first.
    assert code in ("provider_timeout", "deadline_exceeded")
    assert [frame.event for frame in frames[-2:]] == ["usage", "failed"]
    assert (await tight.snapshot(message_id))["error"]["code"] == code


async def test_a_message_that_runs_too_long_fails(tight: Caller) -> None:
    message_id = await tight.accepted("slowly but surely " * 20, rate=5)
    frames = await tight.log(message_id)
    assert_whole_log(frames)
    assert (frames[-1].event, frames[-1].data["code"]) == ("failed", "deadline_exceeded")
    assert frames[-2].event == "usage"
    text = visible_text(frames)
    assert text
    assert (await tight.snapshot(message_id))["text"] == text


async def test_more_messages_than_jobs_at_once_are_all_answered(tight: Caller) -> None:
    ids = [await tight.accepted(f"number {n} of many", rate=20) for n in range(8)]
    logs = await asyncio.gather(*(tight.log(message_id) for message_id in ids))
    assert [visible_text(log) for log in logs] == [f"number {n} of many" for n in range(8)]


async def test_a_message_queued_behind_others_is_cancelled_at_once(tight: Caller) -> None:
    busy = [await tight.accepted("busy " * 20, rate=5) for _ in range(2)]
    for message_id in busy:
        async with open_tail(tight.events(message_id)) as tail:
            await tail.read_n(1)
    waiting = await tight.accepted("waiting")
    async with open_tail(tight.events(waiting)) as tail:
        assert (await tight.cancel(waiting)).status_code == 202
        frames = await tail.read_until_end(within=1)
    assert [frame.event for frame in frames] == ["start", "usage", "done"]
    for message_id in busy:
        await tight.cancel(message_id)


async def test_an_ended_message_leaves_redis_with_its_log(
    tight: Caller, module_tight_stack: Stack
) -> None:
    message_id = await tight.accepted("gone soon")
    await tight.log(message_id)
    with module_tight_stack.redis.client() as client:

        async def gone() -> bool:
            return client.keys(f"*{message_id}*") == []

        await until(gone, within=6)
        for named in ("rejoin:queue", "rejoin:open", "rejoin:unsaved"):
            assert client.zscore(named, message_id) is None


async def test_every_key_of_a_message_ends_by_itself(
    idle_api: Caller, shared_idle_stack: Stack
) -> None:
    response = await idle_api.post("a", headers={"Idempotency-Key": "lives a day"})
    message_id = response.json()["message_id"]
    with shared_idle_stack.redis.client() as client:
        keys = client.keys(f"*{message_id}*")
        assert keys
        assert all(0 < client.ttl(key) <= 604_800 for key in keys), keys
        hours = {client.ttl(key) // 3600 for key in client.keys("*:idem:*")}
        assert hours
        assert hours <= {23, 24}

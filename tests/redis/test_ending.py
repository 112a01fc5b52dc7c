"""A message that no worker runs is ended once, as a worker would end it; then its job goes."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import cast

import pytest
from redis.asyncio import Redis

from rejoin.shared import ending, keys, log, queue, record, stored, turns
from rejoin.shared.ending import Ender, end_message
from rejoin.shared.errors import Fenced, LogEnded, LogWentBack
from rejoin.shared.events import Event, Failed, FailureCode
from rejoin.shared.record import Status
from rejoin.shared.stored import Stored
from rejoin.shared.tool_events import Needs, ToolCall, ToolResult, ToolStart, ToolWaiting
from tests.support.messages import LIFE, accept, batch, claim, end, ids, place, post, start

FAILURE = Failed(FailureCode.INTERNAL, "the job could not be run", retryable=True)


@pytest.fixture
def ender(any_redis: Redis) -> Ender:
    return Ender(any_redis, "ender", LIFE)


async def told(redis: Redis, message_id: str) -> list[tuple[str, dict[str, object]]]:
    """The log's events with their data."""
    frames = await log.read_all(redis, message_id)
    return [(frame.name, json.loads(frame.json)) for frame in frames]


async def names(redis: Redis, message_id: str) -> list[str]:
    return [name for name, _ in await told(redis, message_id)]


async def status(redis: Redis, message_id: str) -> Status:
    found = await record.load(redis, message_id)
    assert found is not None
    return found.status


async def running(redis: Redis, *events: str) -> tuple[str, record.Claim]:
    """A message that a worker claimed and wrote `start` and texts to."""
    message_id = await post(redis)
    owner = await claim(redis, message_id, "a")
    await log.append(redis, batch(message_id, owner, 0, [start(message_id), *events]))
    return message_id, owner


async def test_a_queued_message_is_cancelled_with_start_usage_and_done(
    any_redis: Redis, ender: Ender
) -> None:
    message_id = await post(any_redis)
    await record.cancel(any_redis, message_id)
    await end_message(ender, message_id)
    events = await told(any_redis, message_id)
    assert [name for name, _ in events] == ["start", "usage", "done"]
    assert events[0][1]["attempt"] == 1
    assert events[1][1]["output_tokens"] == 0
    assert events[2][1] == {"finish_reason": "cancelled", "text_chars": 0}
    assert await ids(any_redis, message_id) == ["1-0", "1-1", "1-2"]
    assert await status(any_redis, message_id) is Status.CANCELLED
    assert await place(any_redis, message_id) == (None, None, False)
    assert LIFE - 60 < await any_redis.ttl(keys.log(message_id)) <= LIFE, "it is not saved yet"


async def test_a_message_broken_off_keeps_its_text_and_marks_the_new_attempt(
    any_redis: Redis, ender: Ender
) -> None:
    message_id, _ = await running(any_redis, "one ", "zw\u00f6 😀")
    await record.cancel(any_redis, message_id)
    await end_message(ender, message_id)
    events = await told(any_redis, message_id)
    assert [name for name, _ in events] == ["start", "text", "text", "reset", "usage", "done"]
    assert events[3][1]["after"] == "1-2"
    assert events[3][1]["attempt"] == 2
    assert events[5][1] == {"finish_reason": "cancelled", "text_chars": 9}
    assert (await ids(any_redis, message_id))[3:] == ["2-0", "2-1", "2-2"]


async def test_its_usage_counts_the_text_of_the_run_that_was_lost(
    any_redis: Redis, ender: Ender
) -> None:
    message_id, _ = await running(any_redis, "four words of text")
    await end_message(ender, message_id)
    usage = dict(await told(any_redis, message_id))["usage"]
    assert usage["estimated"] is True
    assert cast(int, usage["output_tokens"]) > 0


async def test_ending_twice_is_ending_once(any_redis: Redis, ender: Ender) -> None:
    message_id = await post(any_redis)
    await end_message(ender, message_id)
    before = await log.read_all(any_redis, message_id)
    await end_message(ender, message_id)
    await end_message(ender, message_id, FAILURE)
    assert await log.read_all(any_redis, message_id) == before


async def test_ending_at_once_by_many_is_ending_once(redis: Redis) -> None:
    ender = Ender(redis, "ender", LIFE)
    for _ in range(10):
        message_id, _ = await running(redis, "one ")
        await asyncio.gather(
            *(end_message(ender, message_id, FAILURE if n % 2 else None) for n in range(6))
        )
        events = await names(redis, message_id)
        assert events.count("done") + events.count("failed") == 1
        assert events[-1] in ("done", "failed")
        assert await place(redis, message_id) == (None, None, False)


async def test_what_a_crash_left_after_the_end_is_done_by_the_next(
    any_redis: Redis, ender: Ender, monkeypatch: pytest.MonkeyPatch
) -> None:
    message_id = await post(any_redis)
    with monkeypatch.context() as crashing:
        crashing.setattr(ending, "aftermath", _crash)
        with pytest.raises(asyncio.CancelledError):
            await end_message(ender, message_id)
    assert (await place(any_redis, message_id)).indexed
    await end_message(ender, message_id)
    assert await place(any_redis, message_id) == (None, None, False)
    assert await names(any_redis, message_id) == ["start", "usage", "done"]


async def _crash(*_: object, **__: object) -> None:
    raise asyncio.CancelledError


async def test_a_failure_before_anything_ran_has_no_usage(any_redis: Redis, ender: Ender) -> None:
    message_id = await post(any_redis)
    await end_message(ender, message_id, FAILURE)
    events = await told(any_redis, message_id)
    assert [name for name, _ in events] == ["start", "failed"]
    assert events[1][1] == {
        "code": "internal",
        "message": "the job could not be run",
        "retryable": True,
        "status": None,
    }
    assert await status(any_redis, message_id) is Status.FAILED


async def test_a_failure_after_a_lost_run_has_usage(any_redis: Redis, ender: Ender) -> None:
    message_id, _ = await running(any_redis, "one")
    await end_message(ender, message_id, FAILURE)
    assert (await names(any_redis, message_id))[2:] == ["reset", "usage", "failed"]


async def test_a_cancel_wins_over_a_failure(any_redis: Redis, ender: Ender) -> None:
    message_id = await post(any_redis)
    await record.cancel(any_redis, message_id)
    await end_message(ender, message_id, FAILURE)
    assert await names(any_redis, message_id) == ["start", "usage", "done"]
    assert await status(any_redis, message_id) is Status.CANCELLED


async def test_a_cancel_between_claim_and_end_wins_over_a_failure(
    any_redis: Redis, ender: Ender, monkeypatch: pytest.MonkeyPatch
) -> None:
    message_id = await post(any_redis)
    _once_before_the_append(
        monkeypatch, lambda: cast(Awaitable[object], record.cancel(any_redis, message_id))
    )
    await end_message(ender, message_id, FAILURE)
    events = await told(any_redis, message_id)
    assert events[-1] == ("done", {"finish_reason": "cancelled", "text_chars": 0})
    assert await status(any_redis, message_id) is Status.CANCELLED


async def test_a_worker_that_claims_in_between_is_left_alone(
    any_redis: Redis, ender: Ender, monkeypatch: pytest.MonkeyPatch
) -> None:
    message_id = await post(any_redis)
    await queue.lease(any_redis, token="job", lease_seconds=5, most=1, take_over=True)
    _once_before_the_append(
        monkeypatch, lambda: cast(Awaitable[object], claim(any_redis, message_id, "worker"))
    )
    await end_message(ender, message_id)
    assert await ids(any_redis, message_id) == []
    found = await place(any_redis, message_id)
    assert (found.owner, found.indexed) == (b"job", True)
    again = await claim(any_redis, message_id, "worker")
    await log.append(any_redis, batch(message_id, again, 0, [start(message_id, 2)]))


def _once_before_the_append(
    monkeypatch: pytest.MonkeyPatch, happen: Callable[[], Awaitable[object]]
) -> None:
    """Let something happen between an ender's claim and its append, the first time."""
    load, left = stored.load, [happen]

    async def interrupted(redis: Redis, message_id: str) -> Stored:
        if left:
            await left.pop()()
        return await load(redis, message_id)

    monkeypatch.setattr("rejoin.shared.ending.stored.load", interrupted)


async def test_the_worker_that_was_overtaken_writes_nothing_more(
    any_redis: Redis, ender: Ender
) -> None:
    message_id, owner = await running(any_redis, "one")
    await end_message(ender, message_id)
    before = await ids(any_redis, message_id)
    with pytest.raises((Fenced, LogEnded)):
        await log.append(any_redis, batch(message_id, owner, 2, ["two"]))
    with pytest.raises((Fenced, LogEnded)):
        await log.append(any_redis, batch(message_id, owner, 2, end(), ending="done"))
    assert await ids(any_redis, message_id) == before


async def test_a_job_that_a_worker_holds_is_left_to_that_worker(
    any_redis: Redis, ender: Ender
) -> None:
    message_id = await post(any_redis)
    await queue.lease(any_redis, token="job", lease_seconds=5, most=1, take_over=True)
    await end_message(ender, message_id)
    assert (await place(any_redis, message_id)).owner == b"job"
    await end_message(ender, message_id, job_token="job")
    assert await place(any_redis, message_id) == (None, None, False)


async def test_a_message_whose_record_is_gone_loses_its_job_and_entry(
    any_redis: Redis, ender: Ender
) -> None:
    message_id = await post(any_redis)
    await any_redis.delete(keys.record(message_id))
    await end_message(ender, message_id, FAILURE)
    assert await place(any_redis, message_id) == (None, None, False)
    assert await ids(any_redis, message_id) == []


async def test_a_lost_log_is_begun_again_before_the_end(any_redis: Redis, ender: Ender) -> None:
    message_id, _ = await running(any_redis, "one")
    await any_redis.delete(keys.log(message_id))
    await end_message(ender, message_id)
    events = await told(any_redis, message_id)
    assert [name for name, _ in events] == ["start", "reset", "usage", "done"]
    assert events[1][1]["after"] is None
    assert await ids(any_redis, message_id) == ["2-0", "2-1", "2-2", "2-3"]


async def test_a_record_that_is_attempts_behind_its_log_is_ended_all_the_same(
    any_redis: Redis, ender: Ender
) -> None:
    message_id, _ = await running(any_redis, "one")
    older = await any_redis.dump(keys.record(message_id))
    for token in "bcdefghi":
        later = await claim(any_redis, message_id, token)
        await log.append(any_redis, batch(message_id, later, 0, [token]))
    await any_redis.restore(keys.record(message_id), 0, older, replace=True)
    await end_message(ender, message_id)
    assert (await names(any_redis, message_id))[-2:] == ["usage", "done"]
    assert await status(any_redis, message_id) is Status.CANCELLED
    assert await place(any_redis, message_id) == (None, None, False)


async def test_a_message_that_could_not_be_ended_keeps_its_job(
    any_redis: Redis, ender: Ender, monkeypatch: pytest.MonkeyPatch
) -> None:
    message_id = await post(any_redis)

    async def refuse(*_: object) -> None:
        raise LogWentBack(message_id)

    monkeypatch.setattr("rejoin.shared.ending.log.append", refuse)
    await end_message(ender, message_id)
    found = await place(any_redis, message_id)
    assert found.due_in_ms is not None
    assert found.indexed


async def test_an_aftermath_again_after_any_lost_reply_leaves_nothing(any_redis: Redis) -> None:
    message_id = await post(any_redis)
    await queue.lease(any_redis, token="job", lease_seconds=5, most=1, take_over=True)
    owner = await claim(any_redis, message_id, "a")
    last = batch(message_id, owner, 0, [start(message_id), *end()], ending="done")
    await log.append(any_redis, last)
    await queue.complete(any_redis, message_id, "job")  # stored, but its reply was lost
    await ending.aftermath(any_redis, message_id, job_token="job", life_seconds=LIFE)
    assert await place(any_redis, message_id) == (None, None, False)


async def test_an_aftermath_too_early_leaves_everything(any_redis: Redis) -> None:
    message_id = await post(any_redis)
    before = await place(any_redis, message_id)
    with pytest.raises(LogWentBack):
        await ending.aftermath(any_redis, message_id, job_token="", life_seconds=LIFE)
    found = await record.load(any_redis, message_id)
    assert found is not None
    first = await turns.first(any_redis, found.conversation_id, life_seconds=LIFE)
    assert first == message_id
    after = await place(any_redis, message_id)
    assert (after.indexed, after.due_in_ms is None) == (True, before.due_in_ms is None)


async def test_a_message_accepted_and_never_queued_is_ended_too(
    any_redis: Redis, ender: Ender
) -> None:
    message_id = await accept(any_redis)
    await end_message(ender, message_id)
    assert await names(any_redis, message_id) == ["start", "usage", "done"]
    assert await place(any_redis, message_id) == (None, None, False)


def call_events(*names: str) -> list[Event]:
    """Two calls, and then for the first of them what `names` say."""
    made: dict[str, Event] = {
        "tool_waiting": ToolWaiting("a", "mail", Needs.APPROVAL),
        "tool_start": ToolStart("a", "mail"),
        "tool_result": ToolResult("a", "mail", None),
    }
    asked = [ToolCall("a", "mail", {}), ToolCall("b", "read", {})]
    return [*asked, *(made[name] for name in names)]


@pytest.mark.parametrize("after_step", [False, True])
@pytest.mark.parametrize("failure", [None, FAILURE])
@pytest.mark.parametrize("events", [[], ["tool_waiting"], ["tool_waiting", "tool_start"]])
async def test_open_calls_are_closed_before_a_cancelled_end(
    any_redis: Redis, ender: Ender, events: list[str], failure: Failed | None, after_step: bool
) -> None:
    message_id = await post(any_redis)
    owner = await claim(any_redis, message_id, "a")
    sent = [start(message_id), *call_events(*events)]
    await log.append(any_redis, batch(message_id, owner, 0, sent))
    await record.cancel(any_redis, message_id, after_step=after_step)
    await end_message(ender, message_id, failure)
    last = (await told(any_redis, message_id))[-5:]
    assert [name for name, _ in last] == ["reset", "tool_error", "tool_error", "usage", "done"]
    why = "the message was cancelled"
    lost = f"outcome unknown: {why}" if "tool_start" in events else why
    assert [fields for _, fields in last[1:3]] == [
        {"tool_call_id": "a", "name": "mail", "error": lost},
        {"tool_call_id": "b", "name": "read", "error": why},
    ]
    assert last[-1][1]["finish_reason"] == "cancelled"
    assert await status(any_redis, message_id) is Status.CANCELLED


async def test_a_failure_closes_what_is_open_and_says_why(any_redis: Redis, ender: Ender) -> None:
    message_id = await post(any_redis)
    owner = await claim(any_redis, message_id, "a")
    sent = [start(message_id), *call_events("tool_result")]
    await log.append(any_redis, batch(message_id, owner, 0, sent))
    await end_message(ender, message_id, FAILURE)
    last = (await told(any_redis, message_id))[-4:]
    assert [name for name, _ in last] == ["reset", "tool_error", "usage", "failed"]
    why = "the message failed: the job could not be run"
    assert last[1][1] == {"tool_call_id": "b", "name": "read", "error": why}

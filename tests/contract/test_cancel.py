"""POST /api/messages/{id}/cancel: the text so far stays, and the log ends."""

import asyncio
import random
from typing import Any

import pytest

from tests.support.caller import (
    UNKNOWN_ID,
    Caller,
    Stopwatch,
    assert_names,
    assert_problem,
    assert_whole_log,
    caller,
    visible_text,
)
from tests.support.processes import rejoin_stack
from tests.support.redis_server import RedisServer

CANCELLED = {"finish_reason": "cancelled", "text_chars": 0}


async def test_a_queued_message_ends_at_once(idle_api: Caller) -> None:
    async with idle_api.tailed() as (message_id, tail):
        assert (await idle_api.cancel(message_id)).status_code == 202
        frames = await tail.read_until_end(within=2)
    assert_whole_log(frames)
    assert [frame.event for frame in frames] == ["start", "usage", "done"]
    assert frames[-1].data == CANCELLED
    usage = frames[1].data
    assert (usage["input_tokens"], usage["output_tokens"]) == (0, 0)
    seen = await idle_api.snapshot(message_id)
    assert (seen["status"], seen["text"]) == ("cancelled", "")
    assert [attempt["usage"] for attempt in seen["attempts"]] == [None]  # it made no call


async def test_a_cancelled_queued_message_is_never_run(own_redis: RedisServer) -> None:
    with rejoin_stack(own_redis, workers=0) as stack:
        async with caller(stack.url) as api:
            message_id = await api.accepted("never")
            await api.cancel(message_id)
            before = await api.log(message_id)
            stack.new_worker().start()
            after_it = await api.accepted("after it")
            assert visible_text(await api.log(after_it)) == "after it"
            assert [f.raw for f in await api.log(message_id)] == [f.raw for f in before]
        stack.assert_no_traceback()


async def test_a_running_message_ends_and_its_text_stays(api: Caller) -> None:
    async with api.tailed("words that are cut short " * 20, rate=20) as (message_id, tail):
        before = await tail.read_n(5)
        watch = Stopwatch()
        assert (await api.cancel(message_id)).status_code == 202
        frames = await tail.read_until_end(within=3)
        assert watch.seconds < 1.5
    assert_whole_log(frames)
    assert [frame.raw for frame in frames[:5]] == [frame.raw for frame in before]
    text = visible_text(frames)
    assert frames[-1].data == {"finish_reason": "cancelled", "text_chars": len(text)}
    assert [frame.event for frame in frames[-2:]] == ["usage", "done"]


async def test_a_silent_provider_is_cancelled_as_fast(api: Caller) -> None:
    """One word in 50 s: only a worker that hears the cancel by itself ends it in time."""
    async with api.tailed("one two three", rate=0.02) as (message_id, tail):
        await tail.read_n(1)
        watch = Stopwatch()
        assert (await api.cancel(message_id)).status_code == 202
        frames = await tail.read_until_end(within=3)
        assert watch.seconds < 1.5
    assert frames[-1].data["finish_reason"] == "cancelled"


async def test_asked_twice_it_is_202_twice(api: Caller, idle_api: Caller) -> None:
    running = await api.accepted("word " * 100, rate=20)
    queued = await idle_api.accepted()
    for speaker, message_id in ((api, running), (idle_api, queued)):
        assert (await speaker.cancel(message_id)).status_code == 202
        assert (await speaker.cancel(message_id)).status_code == 202
        frames = await speaker.log(message_id)
        assert (await speaker.cancel(message_id)).status_code == 202
        assert [f.raw for f in await speaker.log(message_id)] == [f.raw for f in frames]


async def test_many_cancels_at_once_end_it_once(idle_api: Caller) -> None:
    message_id = await idle_api.accepted()
    answers = await asyncio.gather(*(idle_api.cancel(message_id) for _ in range(20)))
    assert {answer.status_code for answer in answers} == {202}
    frames = await idle_api.log(message_id)
    assert_whole_log(frames)
    assert [frame.event for frame in frames] == ["start", "usage", "done"]


async def test_after_another_end_it_is_409(api: Caller) -> None:
    message_id = await api.accepted()
    frames = await api.log(message_id)
    assert_problem(await api.cancel(message_id), 409)
    assert [f.raw for f in await api.log(message_id)] == [f.raw for f in frames]


@pytest.mark.parametrize("message_id", [UNKNOWN_ID, "abc", "*", "%00"])
async def test_an_unknown_message_is_404(api: Caller, message_id: str) -> None:
    assert_problem(await api.cancel(message_id), 404)


async def test_an_unknown_mode_is_422_and_cancels_nothing(idle_api: Caller) -> None:
    message_id = await idle_api.accepted()
    response = await idle_api.cancel(message_id, json={"mode": "after_message"})
    assert_names(assert_problem(response, 422), "mode")
    assert (await idle_api.snapshot(message_id))["status"] == "queued"


@pytest.mark.parametrize(
    ("status", "content"),
    [(400, b"{"), (400, b"\xff"), (400, b"[" * 50_000), (422, b'{"x": 1}'), (422, b'{"mode": 5}')],
)
async def test_a_wrong_body_is_refused_and_cancels_nothing(
    idle_api: Caller, status: int, content: bytes
) -> None:
    message_id = await idle_api.accepted()
    response = await idle_api.cancel(
        message_id, content=content, headers={"Content-Type": "application/json"}
    )
    assert_problem(response, status)
    assert (await idle_api.snapshot(message_id))["status"] == "queued"


async def test_a_body_over_the_limit_is_413(idle_api: Caller) -> None:
    message_id = await idle_api.accepted()
    headers = {"Content-Type": "application/json"}
    response = await idle_api.cancel(message_id, content=b" " * 2_000_000, headers=headers)
    assert_problem(response, 413)


@pytest.mark.parametrize("body", [{}, {"json": {}}])
async def test_an_empty_body_or_object_is_a_cancel(idle_api: Caller, body: dict[str, Any]) -> None:
    message_id = await idle_api.accepted()
    assert (await idle_api.cancel(message_id, **body)).status_code == 202
    assert (await idle_api.log(message_id))[-1].data == CANCELLED


async def test_a_cancel_touches_no_other_message(api: Caller) -> None:
    text = "goes on by itself " * 3
    kept = await api.accepted(text, rate=50)
    await api.cancel(await api.accepted("word " * 100, rate=20))
    assert visible_text(await api.log(kept)) == text


async def one_race(api: Caller, seed: int, longest_seconds: float = 3) -> str:
    chance = random.Random(seed)
    message_id = await api.accepted("a few words to race with", rate=chance.choice([0, 50, 200]))
    await asyncio.sleep(chance.random() * chance.choice([0.15, longest_seconds]))
    answer = await api.cancel(message_id)
    frames = await api.log(message_id)
    assert_whole_log(frames)
    reason = frames[-1].data["finish_reason"]
    # A 202 is a promise; a 409 says that another end was first.
    assert (answer.status_code, reason) in ((202, "cancelled"), (409, "stop")), answer.text
    assert frames[-1].data["text_chars"] == len(visible_text(frames))
    seen = await api.snapshot(message_id)
    assert seen["status"] == {"cancelled": "cancelled", "stop": "done"}[reason]
    return str(reason)


async def test_cancels_at_any_moment_are_kept_or_refused(api: Caller) -> None:
    reasons: set[str] = set()
    for longest_seconds in (3, 12, 48):  # a busy machine is slow
        races = (one_race(api, seed, longest_seconds) for seed in range(60))
        reasons |= set(await asyncio.gather(*races))
        if len(reasons) > 1:
            break
    assert reasons == {"cancelled", "stop"}

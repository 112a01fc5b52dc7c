"""A message that waits for a person or a client: without a worker, until it is answered."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any, Final, cast

import pytest
from redis.asyncio import Redis

from rejoin.shared import ending, keys, log, queue, record, waiting
from rejoin.shared.asks import Answer, Kind
from rejoin.shared.ending import Ender
from rejoin.shared.events import FinishReason
from rejoin.shared.fold import fold
from rejoin.shared.frames import Frame
from rejoin.shared.request import ToolDefinition
from rejoin.shared.tool_calls import open_calls
from rejoin.worker.providers.base import Turn
from rejoin.worker.tools.base import OnUnknownOutcome
from tests.support.in_process import SCRIPT, RunningWorker, until_ended, worker_on
from tests.support.logs import data, names
from tests.support.messages import LIFE, accept, claim, enqueue, post, until, until_true
from tests.support.scripted_provider import ScriptedProvider, answer
from tests.support.tools import PlainTool, call, calling
from tests.support.waits import say_and_wake as say
from tests.support.waits import until_parked

YES, NO = Answer(Kind.APPROVE, value=True), Answer(Kind.APPROVE, value=False)
CLIENTS: Final = ToolDefinition("ask", "asks", {"type": "object"})


def sure(**fields: Any) -> PlainTool:
    return PlainTool(needs_approval=True, **fields)


@asynccontextmanager
async def parked(
    url: str, redis: Redis, provider: ScriptedProvider, *tools: PlainTool, **settings: Any
) -> AsyncIterator[tuple[str, list[Frame], RunningWorker]]:
    """A message that waits, with the worker that let it."""
    async with worker_on(url, provider, tools=tools, **settings) as worker:
        offered = [*(tool.name for tool in tools), CLIENTS]
        message_id = await post(redis, model=SCRIPT, tools=offered)
        yield message_id, await until_parked(redis, message_id), worker


async def test_a_call_that_needs_consent_waits_without_a_worker_and_runs_once_it_has_it(
    clean_redis_url: str, redis: Redis
) -> None:
    look, provider = sure(), ScriptedProvider(calling(call("c", at=1)), answer("so"))
    async with parked(clean_redis_url, redis, provider, look, max_jobs=1) as (
        message_id,
        before,
        worker,
    ):
        assert names(before) == ["start", "tool_call", "tool_waiting"]
        assert data(before, "tool_waiting") == [
            {"tool_call_id": "c", "name": "look", "needs": "approval"}
        ]
        assert look.ran == []
        await until_true(lambda: worker.worker.job_counter == 0)
        await until_ended(redis, await post(redis))  # the one slot is free
        await say(redis, message_id, "c", YES)
        frames = await until_ended(redis, message_id)
    assert names(frames)[3:] == [
        "reset", "tool_start", "tool_result", "step", "text", "step", "usage", "done",
    ]  # fmt: skip
    (reset,) = data(frames, "reset")
    assert (reset["after"], reset["reason"], reset["model"]) == ("1-2", "answered", SCRIPT)
    assert len(look.ran) == 1
    assert len(provider.calls) == 2


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (NO, "not approved"),
        (Answer(Kind.TIMEOUT), "nobody answered"),
    ],
)
async def test_a_call_that_is_refused_or_not_answered_is_an_error_and_does_not_run(
    clean_redis_url: str, redis: Redis, said: Answer, told: str
) -> None:
    look, provider = sure(), ScriptedProvider(calling(call("c")), answer("so"))
    settings = {"tool_wait_seconds": 0.2} if said.kind is Kind.TIMEOUT else {}
    async with parked(clean_redis_url, redis, provider, look, **settings) as (message_id, _, _):
        if said is NO:
            await say(redis, message_id, "c", said)
        frames = await until_ended(redis, message_id)
    assert told in data(frames, "tool_error")[0]["error"]
    assert look.ran == []
    assert names(frames)[-1] == "done"
    assert provider.calls[1].turns[-1].is_error


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        (Answer(Kind.RESULT, {"ok": 1}), Turn("tool", '{"ok":1}', tool_call_id="c")),
        (Answer(Kind.RESULT, None), Turn("tool", "null", tool_call_id="c")),
        (Answer(Kind.ERROR, "away"), Turn("tool", "away", tool_call_id="c", is_error=True)),
    ],
)
async def test_a_clients_own_tool_waits_for_its_result(
    clean_redis_url: str, redis: Redis, said: Answer, shown: Turn
) -> None:
    provider = ScriptedProvider(calling(call("c", "ask")), answer("so"))
    async with parked(clean_redis_url, redis, provider) as (message_id, before, _):
        assert data(before, "tool_waiting")[0]["needs"] == "result"
        await say(redis, message_id, "c", said)
        frames = await until_ended(redis, message_id)
    assert provider.calls[1].turns[-1] == shown
    assert "tool_start" not in names(frames)
    assert provider.calls[0].tools[0].name == "ask"


async def test_other_calls_of_the_step_run_while_one_waits(
    clean_redis_url: str, redis: Redis
) -> None:
    look, ring = sure(), PlainTool("ring")
    provider = ScriptedProvider(calling(call("a"), call("b", "ring")), answer("so"))
    async with parked(clean_redis_url, redis, provider, look, ring) as (message_id, before, _):
        assert names(before)[-1] == "tool_result"
        assert len(ring.ran) == 1
        await say(redis, message_id, "a", YES)
        await until_ended(redis, message_id)
    assert (len(look.ran), len(ring.ran)) == (1, 1)


async def test_an_answer_that_comes_while_another_call_runs_is_heard(
    clean_redis_url: str, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rejoin.worker.calls._LOOK_SECONDS", 0.02)
    look, ring = sure(), PlainTool("ring", gate=asyncio.Event())
    provider = ScriptedProvider(calling(call("a"), call("b", "ring")), answer("so"))
    async with worker_on(clean_redis_url, provider, tools=[look, ring]):
        message_id = await post(redis, model=SCRIPT, tools=["look", "ring"])
        await until_true(lambda: bool(ring.ran))
        await say(redis, message_id, "a", YES)
        await until_true(lambda: bool(look.ran))
        assert ring.gate is not None
        ring.gate.set()
        frames = await until_ended(redis, message_id)
    assert "reset" not in names(frames)


async def test_two_calls_that_wait_are_answered_one_by_one(
    clean_redis_url: str, redis: Redis
) -> None:
    look, provider = sure(), ScriptedProvider(calling(call("a"), call("b", "ask")), answer("so"))
    async with parked(clean_redis_url, redis, provider, look) as (message_id, _, _):
        await say(redis, message_id, "a", YES)
        await until(lambda: _has(redis, message_id, "tool_result"))
        await until_parked(redis, message_id)
        await say(redis, message_id, "b", Answer(Kind.RESULT, 7))
        frames = await until_ended(redis, message_id)
    assert [told["tool_call_id"] for told in data(frames, "tool_result")] == ["a", "b"]
    assert len(look.ran) == 1
    assert names(frames).count("tool_waiting") == 2


async def _has(redis: Redis, message_id: str, name: str) -> bool:
    return name in names(await log.read_all(redis, message_id))


async def test_answers_that_came_before_the_message_waits_are_taken_at_once(
    clean_redis_url: str, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    park = waiting.park

    async def answered_first(client: Redis, message_id: str, **fields: Any) -> waiting.Parked:
        await say(redis, message_id, "c", YES)
        return await park(client, message_id, **fields)

    monkeypatch.setattr("rejoin.worker.calls.waiting.park", answered_first)
    look, provider = sure(), ScriptedProvider(calling(call("c")), answer("so"))
    async with worker_on(clean_redis_url, provider, tools=[look]):
        frames = await until_ended(redis, await post(redis, model=SCRIPT, tools=["look"]))
    assert "reset" not in names(frames)
    assert len(look.ran) == 1


async def test_an_answer_between_the_parking_and_the_release_is_not_lost(
    clean_redis_url: str, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    park = waiting.park

    async def answered_after(client: Redis, message_id: str, **fields: Any) -> waiting.Parked:
        outcome = await park(client, message_id, **fields)
        if outcome is waiting.Parked.PARKED:
            await say(redis, message_id, "c", YES)
        return outcome

    monkeypatch.setattr("rejoin.worker.calls.waiting.park", answered_after)
    look, provider = sure(), ScriptedProvider(calling(call("c")), answer("so"))
    async with worker_on(clean_redis_url, provider, tools=[look]):
        frames = await until_ended(redis, await post(redis, model=SCRIPT, tools=["look"]), within=3)
    assert len(look.ran) == 1
    assert names(frames)[-1] == "done"


async def test_a_worker_that_leaves_and_another_that_comes_leave_a_waiting_message_alone(
    clean_redis_url: str, redis: Redis
) -> None:
    look, provider = sure(), ScriptedProvider(calling(call("c")), answer("so"))
    async with parked(clean_redis_url, redis, provider, look) as (message_id, before, worker):
        await worker.stop()
        worker.dead = True
    async with worker_on(clean_redis_url, provider, tools=[look], name="worker-2"):
        await until_ended(redis, await post(redis))
        assert len(await log.read_all(redis, message_id)) == len(before)
        await say(redis, message_id, "c", YES)
        frames = await until_ended(redis, message_id)
    assert data(frames, "reset")[0]["attempt"] == 2
    assert len(look.ran) == 1


async def test_waiting_is_no_running(clean_redis_url: str, redis: Redis) -> None:
    look, provider = sure(), ScriptedProvider(calling(call("c")), answer("so"))
    async with parked(clean_redis_url, redis, provider, look, timeout_total=5) as (message_id, *_):
        for field in ("started_at", "parked_at"):
            await cast(Awaitable[int], redis.hincrby(keys.record(message_id), field, -3_600_000))
        await say(redis, message_id, "c", YES)
        frames = await until_ended(redis, message_id)
    assert names(frames)[-1] == "done"


@pytest.mark.parametrize("after_step", [False, True])
async def test_a_cancel_of_a_waiting_message_ends_it_with_its_call_closed(
    clean_redis_url: str, redis: Redis, after_step: bool
) -> None:
    look, provider = sure(), ScriptedProvider(calling(call("c")), answer("so"))
    async with parked(clean_redis_url, redis, provider, look) as (message_id, _, _):
        await record.cancel(redis, message_id, after_step=after_step)
        await queue.wake(redis, message_id)
        await ending.end_message(Ender(redis, "api", LIFE), message_id)
        frames = await until_ended(redis, message_id)
    assert names(frames)[-3:] == ["tool_error", "usage", "done"]
    assert data(frames, "done")[0]["finish_reason"] == "cancelled"
    assert look.ran == []


async def test_with_a_cancel_after_the_step_set_a_step_that_would_wait_is_ended_at_once(
    clean_redis_url: str, redis: Redis
) -> None:
    look, ring = sure(), PlainTool("ring", gate=asyncio.Event())
    provider = ScriptedProvider(calling(call("a"), call("b", "ring")), answer("so"))
    async with worker_on(clean_redis_url, provider, tools=[look, ring]):
        message_id = await post(redis, model=SCRIPT, tools=["look", "ring"])
        await until_true(lambda: bool(ring.ran))
        await record.cancel(redis, message_id, after_step=True)
        assert ring.gate is not None
        ring.gate.set()
        frames = await until_ended(redis, message_id)
    assert names(frames)[-4:] == ["tool_result", "tool_error", "usage", "done"]
    assert data(frames, "done")[0]["finish_reason"] == "cancelled"


async def test_a_cancel_after_the_step_lets_the_tools_of_the_step_end(
    clean_redis_url: str, redis: Redis
) -> None:
    look = PlainTool(gate=asyncio.Event())
    provider = ScriptedProvider(calling(call("a")), answer("never"))
    async with worker_on(clean_redis_url, provider, tools=[look]):
        message_id = await post(redis, model=SCRIPT, tools=["look"])
        await until_true(lambda: bool(look.ran))
        await record.cancel(redis, message_id, after_step=True)
        assert look.gate is not None
        look.gate.set()
        frames = await until_ended(redis, message_id)
    assert names(frames)[-4:] == ["tool_result", "step", "usage", "done"]
    assert data(frames, "done")[0]["finish_reason"] == "cancelled"
    assert len(provider.calls) == 1


async def test_a_cancel_after_the_step_lets_the_last_step_end(
    clean_redis_url: str, redis: Redis
) -> None:
    gate = asyncio.Event()
    provider = ScriptedProvider([*answer("one ")[:1], gate, *answer("two")])
    async with worker_on(clean_redis_url, provider):
        message_id = await post(redis, model=SCRIPT)
        await until(lambda: _has(redis, message_id, "text"))
        await record.cancel(redis, message_id, after_step=True)
        gate.set()
        frames = await until_ended(redis, message_id)
    assert names(frames)[1:] == ["text", "text", "step", "usage", "done"]
    assert data(frames, "done")[0] == {"finish_reason": "cancelled", "text_chars": 7}


async def test_a_takeover_after_a_step_with_a_cancel_after_it_calls_no_model(
    clean_redis_url: str, redis: Redis
) -> None:
    look, provider = PlainTool(), ScriptedProvider(calling(call("a")), answer("x"))
    async with worker_on(clean_redis_url, provider, tools=[look]):
        whole = await until_ended(redis, await post(redis, model=SCRIPT, tools=["look"]))
        cut = names(whole).index("step") + 1
        for more in (0, 1):  # events of the next step, which may end then
            message_id = await accept(redis, model=SCRIPT, tools=["look"])
            claimed = await claim(redis, message_id, "lost")
            batch = log.Batch(message_id, claimed.token, whole[: cut + more], LIFE)
            await log.append(redis, batch)
            await record.cancel(redis, message_id, after_step=True)
            provider.calls = provider.calls[:1]
            await enqueue(redis, message_id)
            frames = await until_ended(redis, message_id)
            assert data(frames, "done")[0]["finish_reason"] == "cancelled"
            assert len(provider.calls) == 1 + more
            assert fold(frames).text == "x" * more


async def test_a_started_call_whose_worker_was_lost_is_asked_about_where_its_tool_says_so(
    clean_redis_url: str, redis: Redis
) -> None:
    look = sure(on_unknown_outcome=OnUnknownOutcome.ASK, gate=asyncio.Event())
    provider = ScriptedProvider(calling(call("c")), answer("so"))
    async with parked(clean_redis_url, redis, provider, look) as (message_id, _, worker):
        await say(redis, message_id, "c", YES)
        await until_true(lambda: bool(look.ran))
        await worker.stop()
        worker.dead = True
    assert look.gate is not None
    look.gate.set()
    async with worker_on(clean_redis_url, provider, tools=[look], name="worker-2"):
        before = await until_parked(redis, message_id)
        assert names(before)[-2:] == ["reset", "tool_waiting"]
        assert len(look.ran) == 1, "the consent to the first run is none to the second"
        await say(redis, message_id, "c", YES)
        frames = await until_ended(redis, message_id)
    assert len(look.ran) == 2
    assert len(set(look.keys)) == 1
    assert names(frames)[-1] == "done"


async def test_a_message_is_taken_over_at_any_event_of_its_waiting(
    clean_redis_url: str, redis: Redis
) -> None:
    look, provider = sure(), ScriptedProvider(calling(call("c")), answer("so"))
    async with parked(clean_redis_url, redis, provider, look) as (message_id, _, _):
        await say(redis, message_id, "c", YES)
        whole = await until_ended(redis, message_id)
    for cut in range(1, names(whole).index("reset") + 1):
        look.ran.clear()
        message_id = await accept(redis, model=SCRIPT, tools=["look"])
        claimed = await claim(redis, message_id, "lost")
        await log.append(redis, log.Batch(message_id, claimed.token, whole[:cut], LIFE))
        own = ScriptedProvider(*([calling(call("c"))] if cut < 2 else []), answer("so"))
        async with worker_on(clean_redis_url, own, tools=[look]):
            await enqueue(redis, message_id)
            frames = await until_parked(redis, message_id)
            assert names(frames).count("tool_waiting") == 1
            await say(redis, message_id, "c", YES)
            frames = await until_ended(redis, message_id)
        assert len(look.ran) == 1
        assert open_calls(fold(frames)) == []
        assert data(frames, "done")[0]["finish_reason"] == FinishReason.STOP


async def test_many_messages_wait_at_no_cost_to_the_worker(
    clean_redis_url: str, redis: Redis
) -> None:
    look, provider = sure(), ScriptedProvider(calling(call("c")))
    async with worker_on(clean_redis_url, provider, tools=[look], max_jobs=5) as worker:
        waiting_ids = [await post(redis, model=SCRIPT, tools=["look"]) for _ in range(40)]
        for message_id in waiting_ids:
            await until_parked(redis, message_id)
        await until_true(lambda: worker.worker.job_counter == 0)
        assert await cast(Awaitable[int], redis.hlen(keys.OWNERS)) == 0
        frames = await until_ended(redis, await post(redis))
    assert names(frames)[-1] == "done"


async def test_a_tool_that_is_no_more_keeps_nobody_waiting(
    clean_redis_url: str, redis: Redis
) -> None:
    look, provider = sure(), ScriptedProvider(calling(call("c")), answer("so"))
    async with parked(clean_redis_url, redis, provider, look) as (message_id, _, worker):
        await worker.stop()
        worker.dead = True
    async with worker_on(clean_redis_url, provider, name="worker-2"):
        await say(redis, message_id, "c", YES)
        frames = await until_ended(redis, message_id)
    assert names(frames)[-3:] == ["tool_error", "usage", "failed"]
    assert data(frames, "failed")[0]["code"] == "invalid_request"

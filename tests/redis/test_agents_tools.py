"""The tools that an agent calls: told, bounded, consented to, and run once."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import pytest
from redis.asyncio import Redis

from rejoin.shared import log, queue, record, waiting
from rejoin.shared.asks import Answer, Kind
from rejoin.shared.errors import ToolError
from rejoin.shared.fold import fold
from rejoin.shared.frames import Frame
from rejoin.shared.request import ToolDefinition
from rejoin.shared.tool_calls import open_calls
from rejoin.worker.agents import Agent, Run, Said, Step, agent
from rejoin.worker.agents.calling import AgentCalls
from rejoin.worker.calls import Waiting
from rejoin.worker.providers.base import ToolCall, ToolCallChunk, UsageChunk
from rejoin.worker.tools.base import Call, OnUnknownOutcome
from tests.support.in_process import SCRIPT, RunningWorker, until_ended, worker_on
from tests.support.logs import data, names
from tests.support.messages import post, until, until_true
from tests.support.scripted_provider import ScriptedProvider, answer
from tests.support.tools import PlainTool, call, calling
from tests.support.waits import say_and_wake as say
from tests.support.waits import until_parked

Words = AsyncGenerator[Said, None]

YES, NO = Answer(Kind.APPROVE, value=True), Answer(Kind.APPROVE, value=False)
CLIENTS: Final = ToolDefinition("ask", "asks", {"type": "object"})


def named(function: Callable[[Run], Words]) -> Agent:
    return agent(name="mine")(function)


async def log_of(
    url: str,
    redis: Redis,
    function: Callable[[Run], Words],
    *tools: PlainTool,
    provider: ScriptedProvider | None = None,
    settings: dict[str, Any] | None = None,
    **request: Any,
) -> list[Frame]:
    """The log of a message that an agent answers."""
    async with worker_on(url, provider, tools=tools, agents=[named(function)], **(settings or {})):
        return await until_ended(redis, await post(redis, model="agent/mine", **request))


async def test_a_call_is_told_started_before_it_runs_and_returned(
    clean_redis_url: str, redis: Redis
) -> None:
    seen: list[list[str]] = []

    async def act(arguments: object, call: Call) -> object:
        seen.append(names(await log.read_all(redis, call.message_id)))
        call.report("half", 0.5)
        return [arguments, None]

    async def mine(run: Run) -> Words:
        yield json.dumps(await run.tool("look", {"at": (1, 2)}))

    frames = await log_of(clean_redis_url, redis, mine, PlainTool(act=act))
    assert names(frames) == [
        "start", "tool_call", "tool_start", "data", "tool_result", "text", "step", "usage", "done",
    ]  # fmt: skip
    assert seen == [["start", "tool_call", "tool_start"]]
    assert fold(frames).text == '[{"at": [1, 2]}, null]'
    assert data(frames, "tool_call")[0]["arguments"] == {"at": [1, 2]}


async def test_calls_run_side_by_side_and_alike_ones_are_two(
    clean_redis_url: str, redis: Redis
) -> None:
    both = asyncio.Barrier(2)

    async def act(arguments: object, call: Call) -> object:
        await both.wait()
        return call.tool_call_id

    async def mine(run: Run) -> Words:
        found = await asyncio.gather(run.tool("look"), run.tool("look"))
        assert len(set(found)) == 2
        yield "so"

    look = PlainTool(act=act)
    frames = await log_of(clean_redis_url, redis, mine, look)
    assert names(frames)[-1] == "done"
    assert len(set(look.keys)) == 2


@pytest.mark.parametrize(
    ("name", "arguments", "told"),
    [
        ("nobody", {}, "there is no tool nobody"),
        ("look", {"bad": 1}, "bad is not a parameter"),
        ("fail", {}, "no luck"),
        ("slow", {}, "timed out"),
        ("much", {}, "longer than"),
    ],
)
async def test_a_call_that_fails_is_told_and_raised(
    clean_redis_url: str, redis: Redis, name: str, arguments: dict[str, object], told: str
) -> None:
    async def fail(_: object, __: Call) -> object:
        raise ToolError("no luck")

    async def much(_: object, __: Call) -> object:
        return "x" * 100_000

    tools = [
        PlainTool(),
        PlainTool("fail", act=fail),
        PlainTool("slow", timeout_seconds=0.05, gate=asyncio.Event()),
        PlainTool("much", act=much),
    ]

    async def mine(run: Run) -> Words:
        try:
            await run.tool(name, arguments)
        except ToolError as error:
            yield str(error)

    frames = await log_of(clean_redis_url, redis, mine, *tools)
    assert told in fold(frames).text
    assert told in data(frames, "tool_error")[0]["error"]
    assert names(frames)[-1] == "done"


async def test_arguments_that_are_none_reach_no_tool_and_no_log(
    clean_redis_url: str, redis: Redis
) -> None:
    async def mine(run: Run) -> Words:
        for arguments in ({"a": object()}, [1], {"a": "x" * 2_000_000}):
            with pytest.raises(ToolError):
                await run.tool("look", arguments)  # type: ignore[arg-type]
        yield "so"

    look = PlainTool()
    frames = await log_of(clean_redis_url, redis, mine, look)
    assert look.ran == []
    assert names(frames) == ["start", "text", "step", "usage", "done"]


async def test_a_call_that_the_agent_gives_up_is_stopped_and_closed(
    clean_redis_url: str, redis: Redis
) -> None:
    stopped: list[str] = []

    async def act(_: object, __: Call) -> object:
        try:
            return await asyncio.Event().wait()
        finally:
            stopped.append("yes")

    async def mine(run: Run) -> Words:
        try:
            async with asyncio.timeout(0.05):
                await run.tool("look")
        except TimeoutError:
            yield "gave up"

    frames = await log_of(clean_redis_url, redis, mine, PlainTool(act=act))
    assert fold(frames).text == "gave up"
    assert "did not wait" in data(frames, "tool_error")[0]["error"]
    assert "outcome unknown" in data(frames, "tool_error")[0]["error"]
    assert stopped == ["yes"]


async def test_a_cancel_stops_its_tools_and_closes_their_calls(
    clean_redis_url: str, redis: Redis
) -> None:
    look = PlainTool(gate=asyncio.Event())

    async def mine(run: Run) -> Words:
        yield "so"
        await asyncio.gather(run.tool("look", {"n": 1}), run.tool("look", {"n": 2}))

    async with worker_on(clean_redis_url, tools=[look], agents=[named(mine)]):
        message_id = await post(redis, model="agent/mine")
        await until_true(lambda: len(look.ran) == 2)
        await record.cancel(redis, message_id)
        frames = await until_ended(redis, message_id)
    assert names(frames)[-4:] == ["tool_error", "tool_error", "usage", "done"]
    assert data(frames, "done")[0]["finish_reason"] == "cancelled"


async def test_a_model_and_its_tools_in_a_loop(clean_redis_url: str, redis: Redis) -> None:
    broken = ToolCallChunk(ToolCall("c", "look", {}), broken='{"at":')
    provider = ScriptedProvider(
        calling(call("a", at=1), call("b", bad=1), broken, words="hm ", used=UsageChunk(5, 1)),
        [*answer("so"), UsageChunk(7, 1)],
    )

    async def mine(run: Run) -> Words:
        turns = list(run.turns)
        while True:
            async with run.model(SCRIPT, turns, tools=["look"]) as said:
                async for piece in said:
                    yield piece
            if not said.calls:
                return
            turns += await run.answers(said)
            yield Step()

    look = PlainTool()
    frames = await log_of(clean_redis_url, redis, mine, look, provider=provider)
    assert fold(frames).text == "hm so"
    assert look.seen == [{"at": 1}]
    assert [tool.name for tool in provider.calls[0].tools] == ["look"]
    shown = provider.calls[1].turns[-4:]
    assert [turn.role for turn in shown] == ["assistant", "tool", "tool", "tool"]
    assert [turn.is_error for turn in shown[1:]] == [False, True, True]
    assert len(data(frames, "tool_error")) == 2
    (usage,) = data(frames, "usage")
    assert usage["input_tokens"] == 12


# Waiting.


def waits_of(frames: Sequence[Frame]) -> list[str]:
    return [str(told["tool_call_id"]) for told in data(frames, "tool_waiting")]


@asynccontextmanager
async def parked(
    url: str,
    redis: Redis,
    function: Callable[[Run], Words],
    *tools: PlainTool,
    provider: ScriptedProvider | None = None,
    **settings: Any,
) -> AsyncIterator[tuple[str, list[Frame], RunningWorker]]:
    """A message whose agent waits, with the worker that let it."""
    async with worker_on(
        url, provider, tools=tools, agents=[named(function)], **settings
    ) as worker:
        message_id = await post(redis, model="agent/mine", tools=[CLIENTS])
        yield message_id, await until_parked(redis, message_id), worker


def asking(runs: list[Run]) -> Callable[[Run], Words]:
    async def mine(run: Run) -> Words:
        runs.append(run)
        if run.checkpoint is None:
            yield "first "
            yield Step("past")
        yield "asks "
        try:
            yield f"got {await run.tool('look', {'at': 1})}"
        except ToolError as error:
            yield str(error)

    return mine


async def test_a_call_that_needs_consent_waits_without_a_worker_and_runs_once_it_has_it(
    clean_redis_url: str, redis: Redis
) -> None:
    runs, look = list[Run](), PlainTool(needs_approval=True)
    async with parked(clean_redis_url, redis, asking(runs), look, max_jobs=1) as (
        message_id,
        before,
        worker,
    ):
        assert names(before) == [
            "start", "text", "step", "text", "tool_call", "tool_waiting",
        ]  # fmt: skip
        assert look.ran == []
        await until_true(lambda: worker.worker.job_counter == 0)
        await until_ended(redis, await post(redis))  # the one slot is free
        await say(redis, message_id, waits_of(before)[0], YES)
        frames = await until_ended(redis, message_id)
    assert fold(frames).text == "first asks got {'at': 1}"
    (reset,) = data(frames, "reset")
    assert (reset["reason"], reset["after"]) == ("answered", "1-2")
    assert [run.checkpoint for run in runs] == [None, "past"]
    assert len(look.ran) == 1
    assert names(frames)[-1] == "done"


@pytest.mark.parametrize(
    ("said", "told"), [(NO, "not approved"), (Answer(Kind.TIMEOUT), "nobody answered")]
)
async def test_a_call_that_is_refused_or_not_answered_is_an_error(
    clean_redis_url: str, redis: Redis, said: Answer, told: str
) -> None:
    look = PlainTool(needs_approval=True)
    settings: dict[str, Any] = {"tool_wait_seconds": 0.3} if said.kind is Kind.TIMEOUT else {}
    async with parked(clean_redis_url, redis, asking([]), look, **settings) as (message_id, at, _):
        if said is NO:
            await say(redis, message_id, waits_of(at)[0], said)
        frames = await until_ended(redis, message_id)
    assert told in fold(frames).text
    assert told in data(frames, "tool_error")[-1]["error"]
    assert look.ran == []


async def test_a_tool_of_the_clients_is_answered_by_it(clean_redis_url: str, redis: Redis) -> None:
    async def mine(run: Run) -> Words:
        yield f"{await run.tool('ask')}"

    async with parked(clean_redis_url, redis, mine) as (message_id, before, _):
        assert data(before, "tool_waiting")[0]["needs"] == "result"
        await say(redis, message_id, waits_of(before)[0], Answer(Kind.RESULT, {"it": "is"}))
        frames = await until_ended(redis, message_id)
    assert fold(frames).text == "{'it': 'is'}"


async def test_a_call_that_has_its_answer_is_not_told_of_again_as_one_that_waits(
    clean_redis_url: str, redis: Redis
) -> None:
    async def mine(run: Run) -> Words:
        yield f"{await run.tool('ask')}"

    async with parked(clean_redis_url, redis, mine) as (message_id, before, _):
        await say(redis, message_id, waits_of(before)[0], Answer(Kind.RESULT, 1))
        frames = await until_ended(redis, message_id)
    assert waits_of(frames) == waits_of(before)  # a client that heeds each would run it twice


async def test_it_waits_for_all_of_its_calls_and_what_ran_beside_is_not_run_again(
    clean_redis_url: str, redis: Redis
) -> None:
    look, quick = PlainTool(needs_approval=True), PlainTool("quick")

    async def mine(run: Run) -> Words:
        found = await asyncio.gather(
            run.tool("look", {"n": 1}), run.tool("look", {"n": 2}), run.tool("quick"),
            return_exceptions=True,
        )  # fmt: skip
        yield json.dumps([str(one) for one in found])

    async with parked(clean_redis_url, redis, mine, look, quick) as (message_id, before, _):
        assert names(before).count("tool_result") == 1
        called = {told["tool_call_id"]: told["arguments"] for told in data(before, "tool_call")}
        for call_id in waits_of(before):
            await say(redis, message_id, call_id, YES if called[call_id] == {"n": 1} else NO)
        frames = await until_ended(redis, message_id)
    assert look.seen == [{"n": 1}]
    assert len(quick.ran) == 1
    assert json.loads(fold(frames).text) == [
        "{'n': 1}", "refused: the call was not approved", "{}",
    ]  # fmt: skip
    assert open_calls(fold(frames)) == []


@pytest.mark.parametrize("beside", ["tool", "model"])
async def test_it_does_not_wait_while_something_else_runs_that_it_asked_for(
    clean_redis_url: str, redis: Redis, monkeypatch: pytest.MonkeyPatch, beside: str
) -> None:
    gate, looks = asyncio.Event(), list[bool]()
    look, slow = PlainTool(needs_approval=True), PlainTool("slow", gate=gate)
    provider = ScriptedProvider([gate, *answer("so")])
    hear_or_park = AgentCalls.hear_or_park

    async def looked(self: AgentCalls, alone: Callable[[], bool]) -> Waiting | None:
        looks.append(alone())
        if len(looks) == 3:
            gate.set()
        return await hear_or_park(self, alone)

    monkeypatch.setattr(AgentCalls, "hear_or_park", looked)
    monkeypatch.setattr("rejoin.worker.agents.run._LOOK_SECONDS", 0.02)

    async def other(run: Run) -> object:
        if beside == "tool":
            return await run.tool("slow")
        async with run.model(SCRIPT) as said:
            return await said.whole()

    async def mine(run: Run) -> Words:
        await asyncio.gather(other(run), run.tool("look"))
        yield "so"

    async with parked(clean_redis_url, redis, mine, look, slow, provider=provider) as (
        message_id,
        before,
        _,
    ):
        assert len(looks) >= 3
        await say(redis, message_id, waits_of(before)[0], YES)
        frames = await until_ended(redis, message_id)
    assert data(frames, "tool_error") == []
    assert len(slow.ran) == (beside == "tool")
    assert len(look.ran) == 1


async def test_one_answer_of_two_lets_the_message_wait_on(
    clean_redis_url: str, redis: Redis
) -> None:
    look = PlainTool(needs_approval=True)

    async def mine(run: Run) -> Words:
        found = await asyncio.gather(run.tool("look", {"n": 1}), run.tool("look", {"n": 2}))
        yield json.dumps(found)

    async with parked(clean_redis_url, redis, mine, look) as (message_id, before, _):
        first, second = waits_of(before)
        deadlines = await waiting.asked(redis, message_id)
        await say(redis, message_id, first, YES)
        await until_true(lambda: len(look.ran) == 1)
        again = await until_parked(redis, message_id)
        assert waits_of(again).count(second) == 2
        assert (await waiting.asked(redis, message_id))[second] == deadlines[second]
        await say(redis, message_id, second, YES)
        frames = await until_ended(redis, message_id)
    assert fold(frames).text == '[{"n": 1}, {"n": 2}]'
    assert len(look.ran) == 2


async def test_a_worker_that_comes_to_it_while_it_waits_lets_it_wait_on(
    clean_redis_url: str, redis: Redis
) -> None:
    look = PlainTool(needs_approval=True)
    async with parked(clean_redis_url, redis, asking([]), look) as (message_id, before, _):
        asked = await waiting.asked(redis, message_id)
        await queue.wake(redis, message_id)

        async def again() -> bool:
            found = await log.read_all(redis, message_id)
            return len(waits_of(found)) == 2

        await until(again)
        frames = await until_parked(redis, message_id)
        assert waits_of(frames) == waits_of(before) * 2
        assert await waiting.asked(redis, message_id) == asked
        await say(redis, message_id, waits_of(before)[0], YES)
        frames = await until_ended(redis, message_id)
    assert len(look.ran) == 1
    assert fold(frames).text == "first asks got {'at': 1}"


async def test_what_its_models_used_before_it_waited_is_billed(
    clean_redis_url: str, redis: Redis
) -> None:
    provider = ScriptedProvider([*answer("so"), UsageChunk(10, 1)])

    async def mine(run: Run) -> Words:
        async with run.model(SCRIPT) as said:
            await said.whole()
        yield str(await run.tool("look"))

    look = PlainTool(needs_approval=True)
    async with parked(clean_redis_url, redis, mine, look, provider=provider) as (
        message_id,
        before,
        _,
    ):
        await say(redis, message_id, waits_of(before)[0], YES)
        frames = await until_ended(redis, message_id)
    (usage,) = data(frames, "usage")
    assert (usage["input_tokens"], usage["estimated"]) == (20, False)


async def test_a_message_that_waits_is_cancelled_at_once(
    clean_redis_url: str, redis: Redis
) -> None:
    look = PlainTool(needs_approval=True)
    async with parked(clean_redis_url, redis, asking([]), look) as (message_id, _, _):
        await record.cancel(redis, message_id)
        await queue.wake(redis, message_id)
        frames = await until_ended(redis, message_id)
    assert data(frames, "done")[0]["finish_reason"] == "cancelled"
    assert open_calls(fold(frames)) == []
    assert look.ran == []


@pytest.mark.parametrize("approved", [True, False])
async def test_a_started_call_whose_worker_was_lost_asks_where_its_tool_says_so(
    clean_redis_url: str, redis: Redis, approved: bool
) -> None:
    lost = PlainTool(on_unknown_outcome=OnUnknownOutcome.ASK, gate=asyncio.Event())
    async with worker_on(
        clean_redis_url, tools=[lost], agents=[named(asking([]))], lease_seconds=0.5
    ) as first:
        message_id = await post(redis, model="agent/mine")
        await until_true(lambda: len(lost.ran) == 1)
        await first.die()
    look = PlainTool(on_unknown_outcome=OnUnknownOutcome.ASK)
    async with worker_on(
        clean_redis_url, tools=[look], agents=[named(asking([]))], name="worker-2",
        lease_seconds=0.5,
    ):  # fmt: skip
        before = await until_parked(redis, message_id)
        assert look.ran == []
        await say(redis, message_id, waits_of(before)[-1], YES if approved else NO)
        frames = await until_ended(redis, message_id)
    assert len(look.ran) == approved
    assert ("got" in fold(frames).text) is approved
    assert look.keys == lost.keys * approved

"""An agent of the user's own as a model: what it says, how it fails, how it is stopped."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any, Final

import pytest
from redis.asyncio import Redis

from rejoin.shared import record
from rejoin.shared.errors import ProviderError
from rejoin.shared.events import FailureCode, FinishReason
from rejoin.shared.fold import fold
from rejoin.shared.frames import Frame
from rejoin.shared.request import ResponseFormat
from rejoin.worker.agents import (
    Agent,
    Data,
    Reasoning,
    Run,
    Said,
    Step,
    Text,
    ToolCall,
    ToolError,
    ToolResult,
    ToolStart,
    Turn,
    agent,
)
from rejoin.worker.providers.base import FinishChunk, UsageChunk, WorkingChunk
from tests.support.in_process import SCRIPT, until_ended, until_events, worker_on
from tests.support.logs import data, names
from tests.support.messages import post, until_true
from tests.support.scripted_provider import SILENCE, Line, ScriptedProvider, answer, texts

Words = AsyncGenerator[Said, None]

AWAY: Final = ProviderError("away", code=FailureCode.PROVIDER_UNAVAILABLE, retryable=True)
REFUSED: Final = ProviderError(
    "no such key", code=FailureCode.AUTHENTICATION, retryable=False, status=401
)


def named(function: Callable[[Run], Words]) -> Agent:
    return agent(name="mine")(function)


async def log_of(
    url: str,
    redis: Redis,
    function: Callable[[Run], Words],
    provider: ScriptedProvider | None = None,
    *,
    settings: dict[str, Any] | None = None,
    **request: Any,
) -> list[Frame]:
    """The log of a message that an agent answers."""
    async with worker_on(url, provider, agents=[named(function)], **(settings or {})):
        message_id = await post(redis, model="agent/mine", **request)
        return await until_ended(redis, message_id)


async def test_what_an_agent_says_is_the_log(clean_redis_url: str, redis: Redis) -> None:
    async def mine(run: Run) -> Words:
        yield Reasoning("hm ")
        yield "one "
        yield Text("two ")
        yield ""
        yield Data("progress", {"at": (1, None)})
        yield Step({"seen": 1})
        yield "thr\ud83d"
        yield "\ude00ee"

    frames = await log_of(clean_redis_url, redis, mine)
    assert names(frames) == [
        "start", "reasoning", "text", "text", "data", "step", "text", "text", "step", "usage",
        "done",
    ]  # fmt: skip
    assert fold(frames).text == "one two thr😀ee"
    assert data(frames, "data") == [
        {"name": "progress", "value": {"at": [1, None]}, "tool_call_id": None}
    ]
    assert data(frames, "step") == [
        {"step": 1, "finish_reason": "tool_calls"},
        {"step": 2, "finish_reason": "stop"},
    ]
    assert data(frames, "done") == [{"finish_reason": "stop", "text_chars": 14}]
    (usage,) = data(frames, "usage")
    assert (usage["input_tokens"], usage["cost_usd"], usage["estimated"]) == (0, None, False)


async def test_what_an_agent_is_given(clean_redis_url: str, redis: Redis) -> None:
    seen: list[Run] = []

    async def mine(run: Run) -> Words:
        seen.append(run)
        yield "so"

    await log_of(
        clean_redis_url, redis, mine,
        system="be brief", temperature=0.5, max_tokens=7, metadata={"of": "a test"}, text="why?",
    )  # fmt: skip
    (run,) = seen
    assert [(turn.role, turn.content) for turn in run.turns] == [
        ("system", "be brief"),
        ("user", "why?"),
    ]
    assert (run.request.temperature, run.request.max_tokens) == (0.5, 7)
    assert (run.metadata, run.checkpoint, run.step, run.attempt) == ({"of": "a test"}, None, 1, 1)


async def test_a_later_message_brings_what_the_agent_said(
    clean_redis_url: str, redis: Redis
) -> None:
    turns: list[Sequence[Turn]] = []

    async def mine(run: Run) -> Words:
        turns.append(run.turns)
        yield "first "
        yield Step()
        yield "second"

    async with worker_on(clean_redis_url, agents=[named(mine)]):
        first = await post(redis, "why?", model="agent/mine")
        await until_ended(redis, first)
        found = await record.load(redis, first)
        assert found is not None
        again = await post(
            redis, "and?", model="agent/mine", conversation_id=found.conversation_id,
            parent_id=first,
        )  # fmt: skip
        await until_ended(redis, again)
    assert [(turn.role, turn.content) for turn in turns[1]] == [
        ("user", "why?"),
        ("assistant", "first second"),
        ("user", "and?"),
    ]


async def test_a_models_answer_is_passed_on_and_billed(clean_redis_url: str, redis: Redis) -> None:
    used = UsageChunk(input_tokens=100, output_tokens=20)
    provider = ScriptedProvider([*answer("a ", "b "), used], [*answer("c"), used])

    async def mine(run: Run) -> Words:
        async with run.model(SCRIPT) as first:
            async for piece in first:
                yield piece
        assert first.text == "a b "
        yield Step()
        async with run.model(SCRIPT, "again", temperature=1) as second:
            yield (await second.whole()).upper()

    frames = await log_of(clean_redis_url, redis, mine, provider, text="why?")
    assert fold(frames).text == "a b C"
    assert [call.turns[-1].content for call in provider.calls] == ["why?", "again"]
    assert provider.calls[1].temperature == 1
    (usage,) = data(frames, "usage")
    assert (usage["input_tokens"], usage["output_tokens"], usage["estimated"]) == (200, 40, False)
    assert provider.open == 0


async def test_arguments_that_broke_off_in_an_agents_call_are_billed(
    clean_redis_url: str, redis: Redis
) -> None:
    broke = ProviderError("broke", code=FailureCode.PROVIDER_UNAVAILABLE, retryable=True)
    provider = ScriptedProvider([WorkingChunk(40), broke], answer("so"))

    async def mine(run: Run) -> Words:
        async with run.model(SCRIPT) as asked:
            yield await asked.whole()

    frames = await log_of(
        clean_redis_url, redis, mine, provider, settings={"provider_retries": 2}, text="why?"
    )
    (usage,) = data(frames, "usage")
    assert (usage["output_tokens"], usage["estimated"]) == (11, True)


async def test_what_an_agent_used_by_itself_is_billed(clean_redis_url: str, redis: Redis) -> None:
    async def mine(run: Run) -> Words:
        yield "so"
        run.used(input_tokens=5, output_tokens=6)

    (usage,) = data(await log_of(clean_redis_url, redis, mine), "usage")
    assert (usage["input_tokens"], usage["output_tokens"]) == (5, 6)


async def test_a_provider_that_fails_early_is_asked_again(
    clean_redis_url: str, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rejoin.worker.agents.model_call.pause_seconds", lambda *_: 0.01)
    provider = ScriptedProvider([AWAY], [AWAY], answer("so"))

    async def mine(run: Run) -> Words:
        async with run.model(SCRIPT) as said:
            yield await said.whole()

    frames = await log_of(clean_redis_url, redis, mine, provider, settings={"provider_retries": 3})
    assert names(frames) == [
        "start", "retry", "retry", "text", "step", "usage", "done",
    ]  # fmt: skip
    assert data(frames, "retry")[0]["reason"] == "provider_unavailable"


@pytest.mark.parametrize(
    ("script", "settings", "code"),
    [
        ([REFUSED], {}, "authentication"),
        ([*texts("a"), AWAY], {"provider_retries": 3}, "provider_unavailable"),
        (texts("a"), {}, "provider_protocol"),
        ([SILENCE], {"timeout_first_token": 0.1}, "provider_timeout"),
        ([*texts("a"), SILENCE], {"timeout_idle": 0.1}, "provider_timeout"),
    ],
)
async def test_a_providers_failure_that_the_agent_leaves_is_the_messages(
    clean_redis_url: str,
    redis: Redis,
    script: list[Line],
    settings: dict[str, Any],
    code: str,
) -> None:
    provider = ScriptedProvider(script)

    async def mine(run: Run) -> Words:
        async with run.model(SCRIPT) as said:
            async for piece in said:
                yield piece

    frames = await log_of(clean_redis_url, redis, mine, provider, settings=settings)
    assert data(frames, "failed")[0]["code"] == code
    assert len(provider.calls) == 1
    assert provider.open == 0


async def test_a_provider_that_does_not_close_costs_no_idle_deadline(
    clean_redis_url: str, redis: Redis
) -> None:
    provider = ScriptedProvider([*answer("so"), SILENCE])

    async def mine(run: Run) -> Words:
        async with run.model(SCRIPT) as said:
            yield await said.whole()

    frames = await log_of(clean_redis_url, redis, mine, provider, settings={"timeout_idle": 0.1})
    assert names(frames)[-1] == "done"


def raising(error: BaseException) -> Callable[[Run], Words]:
    async def mine(run: Run) -> Words:
        yield "so"
        raise error

    return mine


def yielding(value: object) -> Callable[[Run], Words]:
    async def mine(run: Run) -> Words:
        yield "so"
        yield value  # type: ignore[misc]

    return mine


CIRCLE: Final[list[object]] = []
CIRCLE.append(CIRCLE)

BROKEN: Final = [
    (raising(ZeroDivisionError("secret")), "the agent mine failed"),
    (raising(SystemExit(1)), "the agent mine failed"),
    (raising(asyncio.CancelledError()), "the agent mine failed"),
    (yielding(7), "a value of the type int"),
    (yielding(b"so"), "a value of the type bytes"),
    (yielding(None), "a value of the type NoneType"),
    (yielding(Data("x", object())), "not JSON"),
    (yielding(Data("x", float("nan"))), "not JSON"),
    (yielding(Data("x", "\ud83d")), "not valid Unicode"),
    (yielding(Data("x", CIRCLE)), "not JSON"),
    (yielding(Data("x", "y" * 70_000)), "longer than"),
    (yielding(Data("", 1)), "without a name"),
    (yielding(Text(7)), "a value of the type int as text"),  # type: ignore[arg-type]
    (yielding(Step(object())), "not JSON"),
    (yielding(Step("x" * 300_000)), "longer than"),
    (yielding(ToolResult("no-such", "look", 1)), "no open call"),
    (yielding(ToolCall("a", "look", [])), "no object"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("function", "told"), BROKEN, ids=range(len(BROKEN)))
async def test_a_broken_agent_fails_its_message_alone_and_gives_nothing_away(
    clean_redis_url: str, redis: Redis, function: Callable[[Run], Words], told: str
) -> None:
    async with worker_on(clean_redis_url, agents=[named(function)]):
        frames = await until_ended(redis, await post(redis, model="agent/mine"))
        after = await until_ended(redis, await post(redis))
    (failed,) = data(frames, "failed")
    assert failed["code"] == "internal"
    assert told in failed["message"]
    assert "secret" not in failed["message"]
    assert fold(frames).text == "so"
    assert names(after)[-1] == "done"


async def test_a_fallback_goes_on_for_an_agent_and_an_agent_for_a_model(
    clean_redis_url: str, redis: Redis
) -> None:
    provider = ScriptedProvider([REFUSED], answer("so"))
    seen: list[Run] = []

    async def mine(run: Run) -> Words:
        yield "half"
        raise ZeroDivisionError

    @agent
    async def other(run: Run) -> Words:
        seen.append(run)
        yield "better"

    async with worker_on(clean_redis_url, provider, agents=[named(mine), other]):
        first = await until_ended(
            redis, await post(redis, model="agent/mine", fallbacks=["agent/other"])
        )
        second = await until_ended(
            redis, await post(redis, model=SCRIPT, fallbacks=["agent/other"])
        )
        third = await until_ended(redis, await post(redis, model="agent/mine", fallbacks=[SCRIPT]))
    assert [fold(frames).text for frames in (first, second, third)] == ["better", "better", "so"]
    (reset,) = data(first, "reset")
    assert (reset["model"], reset["after"], reset["reason"]) == ("agent/other", None, "internal")
    assert [run.checkpoint for run in seen] == [None, None]


async def test_an_agent_that_this_worker_has_not_fails_and_says_so(
    clean_redis_url: str, redis: Redis
) -> None:
    async with worker_on(clean_redis_url):
        frames = await until_ended(redis, await post(redis, model="agent/nobody"))
    assert data(frames, "failed")[0]["code"] == "invalid_request"
    assert "agent/nobody" in data(frames, "failed")[0]["message"]


async def test_its_answer_is_held_to_the_schema_of_the_request(
    clean_redis_url: str, redis: Redis
) -> None:
    async def mine(run: Run) -> Words:
        yield '{"a":'
        yield Step()
        yield "1}" if run.metadata else '"b"}'

    wanted = ResponseFormat("n", {"type": "object", "properties": {"a": {"type": "integer"}}})
    good = await log_of(
        clean_redis_url, redis, mine, response_format=wanted, metadata={"a": "good one"}
    )
    bad = await log_of(clean_redis_url, redis, mine, response_format=wanted)
    assert names(good)[-1] == "done"
    assert data(bad, "failed")[0]["code"] == "invalid_output"


async def test_an_agents_own_tools_are_told_and_an_open_one_is_closed(
    clean_redis_url: str, redis: Redis
) -> None:
    async def mine(run: Run) -> Words:
        yield ToolCall("a", "look", {"at": 1})
        yield ToolStart("a", "look")
        yield Data("seen", 1, "a")
        yield ToolResult("a", "look", {"it": "is"})
        yield Step()
        yield ToolCall("a", "look", {})  # an id that it used before
        yield ToolError("a", "look", "gone")
        yield ToolCall("no id!", "look", {})

    frames = await log_of(clean_redis_url, redis, mine)
    calls = [told["tool_call_id"] for told in data(frames, "tool_call")]
    assert calls[0] == "a"
    assert len(set(calls)) == 3
    assert data(frames, "data")[0]["tool_call_id"] == "a"
    assert [told["tool_call_id"] for told in data(frames, "tool_error")] == calls[1:]
    assert names(frames)[-1] == "done"


async def test_a_step_with_an_open_call_is_refused(clean_redis_url: str, redis: Redis) -> None:
    async def mine(run: Run) -> Words:
        yield ToolCall("a", "look", {})
        yield Step()

    frames = await log_of(clean_redis_url, redis, mine)
    assert "open" in data(frames, "failed")[0]["message"]
    assert data(frames, "tool_error")[0]["tool_call_id"] == "a"


async def test_a_cancel_stops_it_and_lets_it_clean_up(clean_redis_url: str, redis: Redis) -> None:
    cleaned: list[str] = []

    async def mine(run: Run) -> Words:
        try:
            yield "one"
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned.append("yes")

    async with worker_on(clean_redis_url, agents=[named(mine)]):
        message_id = await post(redis, model="agent/mine")
        await until_events(redis, message_id, 2)
        await record.cancel(redis, message_id)
        frames = await until_ended(redis, message_id)
    assert data(frames, "done") == [{"finish_reason": "cancelled", "text_chars": 3}]
    assert cleaned == ["yes"]


@pytest.mark.parametrize("goes_on", ["waits", "talks"])
async def test_one_that_swallows_its_cancellation_is_left_behind_unheard(
    clean_redis_url: str, redis: Redis, caplog: pytest.LogCaptureFixture, goes_on: str
) -> None:
    over, told = asyncio.Event(), list[str]()

    async def mine(run: Run) -> Words:
        yield "one"
        while not over.is_set():
            try:
                await over.wait()
            except asyncio.CancelledError:
                if goes_on == "talks":
                    yield "more"
        try:
            async with run.model(SCRIPT) as said:
                await said.whole()
        except RuntimeError as error:
            told.append(str(error))
        yield "late"

    provider = ScriptedProvider(answer("never"))
    async with worker_on(clean_redis_url, provider, agents=[named(mine)]):
        message_id = await post(redis, model="agent/mine")
        await until_events(redis, message_id, 2)
        await record.cancel(redis, message_id)
        async with asyncio.timeout(3):
            frames = await until_ended(redis, message_id)
        over.set()
        if goes_on == "waits":
            await until_true(lambda: told != [])
            assert "over" in told[0]
        after = await until_ended(redis, await post(redis))
    assert fold(frames).text == "one"
    assert data(frames, "done")[0]["finish_reason"] == "cancelled"
    assert provider.calls == []
    assert names(after)[-1] == "done"


async def test_a_cancel_after_the_step_lets_it_come_to_its_checkpoint(
    clean_redis_url: str, redis: Redis
) -> None:
    go_on = asyncio.Event()

    async def mine(run: Run) -> Words:
        yield "one "
        await go_on.wait()
        yield "two "
        yield Step()
        yield "three"

    async with worker_on(clean_redis_url, agents=[named(mine)]):
        message_id = await post(redis, model="agent/mine")
        await until_events(redis, message_id, 2)
        await record.cancel(redis, message_id, after_step=True)
        go_on.set()
        frames = await until_ended(redis, message_id)
    assert names(frames)[-3:] == ["step", "usage", "done"]
    assert data(frames, "done") == [{"finish_reason": "cancelled", "text_chars": 8}]


async def test_one_that_never_says_anything_is_stopped_by_the_total_deadline_alone(
    clean_redis_url: str, redis: Redis
) -> None:
    async def mine(run: Run) -> Words:
        await asyncio.Event().wait()
        yield "never"

    frames = await log_of(
        clean_redis_url, redis, mine,
        settings={"timeout_total": 0.6, "timeout_first_token": 0.1, "timeout_idle": 0.1},
    )  # fmt: skip
    assert data(frames, "failed")[0]["code"] == "deadline_exceeded"


@pytest.mark.parametrize("piece", ["x" * 100, "x" * 100_000])
async def test_one_that_talks_without_an_end_fills_its_log_and_no_more(
    clean_redis_url: str, redis: Redis, piece: str
) -> None:
    async def mine(run: Run) -> Words:
        while True:
            yield piece

    frames = await log_of(clean_redis_url, redis, mine, settings={"max_log_bytes": 300_000})
    assert data(frames, "done")[0]["finish_reason"] == "length"
    assert sum(len(frame.data) for frame in frames) < 450_000


async def test_steps_are_bounded_by_its_own_code_alone(clean_redis_url: str, redis: Redis) -> None:
    async def mine(run: Run) -> Words:
        for n in range(5):
            yield f"{n} "
            yield Step(n)

    frames = await log_of(clean_redis_url, redis, mine, settings={"max_steps": 2})
    assert fold(frames).text == "0 1 2 3 4 "
    assert data(frames, "done")[0]["finish_reason"] == "stop"


async def test_a_checkpoint_is_stored_when_the_agent_goes_on(
    clean_redis_url: str, redis: Redis
) -> None:
    stored: list[int] = []

    async def mine(run: Run) -> Words:
        yield Step(1)
        stored.append(int(await redis.xlen(f"rejoin:{{{run.message_id}}}:log")))
        yield "so"

    await log_of(clean_redis_url, redis, mine)
    assert stored == [2]


async def test_a_worker_that_leaves_hands_it_over_with_its_checkpoint(
    clean_redis_url: str, redis: Redis
) -> None:
    runs: list[Run] = []

    async def mine(run: Run) -> Words:
        runs.append(run)
        if run.checkpoint is None:
            yield "one "
            yield Step("here")
            yield "lost"
            await asyncio.Event().wait()
        yield "two"

    async with worker_on(clean_redis_url, agents=[named(mine)]) as first:
        message_id = await post(redis, model="agent/mine")
        await until_events(redis, message_id, 4)
        await first.stop()
    async with worker_on(clean_redis_url, agents=[named(mine)], name="worker-2"):
        frames = await until_ended(redis, message_id)
    assert fold(frames).text == "one two"
    assert [run.checkpoint for run in runs] == [None, "here"]
    assert [run.step for run in runs] == [1, 2]


async def test_a_finish_reason_of_its_model_is_its_own_affair(
    clean_redis_url: str, redis: Redis
) -> None:
    provider = ScriptedProvider([*texts("cut"), FinishChunk(FinishReason.LENGTH)])
    reasons: list[object] = []

    async def mine(run: Run) -> Words:
        async with run.model(SCRIPT) as said:
            yield await said.whole()
        reasons.append(said.finish_reason)

    frames = await log_of(clean_redis_url, redis, mine, provider)
    assert data(frames, "done")[0]["finish_reason"] == "stop"
    assert reasons == [FinishReason.LENGTH]

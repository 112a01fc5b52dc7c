"""A message with tools: model call, tools side by side, model call, to the end."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from redis.asyncio import Redis

from rejoin.shared import keys, log, record
from rejoin.shared.errors import ProviderError, ToolError
from rejoin.shared.events import FinishReason
from rejoin.shared.fold import fold
from rejoin.shared.frames import Frame
from rejoin.shared.request import ResponseFormat
from rejoin.shared.tool_calls import open_calls
from rejoin.worker.providers.base import (
    Chunk,
    FinishChunk,
    ReasoningChunk,
    ThinkingChunk,
    ToolCall,
    ToolCallChunk,
    Turn,
    UsageChunk,
)
from rejoin.worker.tools.base import Call
from tests.support.in_process import SCRIPT, until_ended, worker_on
from tests.support.logs import data, names
from tests.support.messages import accept, enqueue, post, until_true
from tests.support.scripted_provider import SILENCE, Line, ScriptedProvider, answer, texts
from tests.support.tools import PlainTool, call, calling

OTHER = "script/y"
BROKE = ProviderError("gone", code="provider_unavailable", retryable=True)


async def run(
    url: str,
    redis: Redis,
    provider: ScriptedProvider,
    *tools: PlainTool,
    settings: Mapping[str, Any] | None = None,
    **fields: Any,
) -> list[Frame]:
    """Post one message with these tools, and let it end."""
    fields.setdefault("tools", [tool.name for tool in tools])
    async with worker_on(url, provider, tools=tools, **(settings or {})):
        return await until_ended(redis, await post(redis, model=SCRIPT, **fields))


async def test_a_tool_is_called_and_the_model_goes_on_with_its_result(
    clean_redis_url: str, redis: Redis
) -> None:
    provider = ScriptedProvider(calling(call("c1", at=1), words="hm"), answer("so"))
    frames = await run(clean_redis_url, redis, provider, PlainTool())
    assert names(frames) == [
        "start", "text", "tool_call", "tool_start", "tool_result", "step",
        "text", "step", "usage", "done",
    ]  # fmt: skip
    assert data(frames, "tool_call") == [
        {"tool_call_id": "c1", "name": "look", "arguments": {"at": 1}}
    ]
    assert data(frames, "tool_result")[0]["result"] == {"at": 1}
    assert data(frames, "step") == [
        {"step": 1, "finish_reason": "tool_calls"},
        {"step": 2, "finish_reason": "stop"},
    ]
    assert data(frames, "done") == [{"finish_reason": "stop", "text_chars": 4}]
    assert provider.calls[1].turns[1:] == [
        Turn("assistant", "hm", (ToolCall("c1", "look", {"at": 1}),)),
        Turn("tool", '{"at":1}', tool_call_id="c1"),
    ]
    assert [tool.name for tool in provider.calls[0].tools] == ["look"]


async def test_the_calls_of_a_step_run_side_by_side(clean_redis_url: str, redis: Redis) -> None:
    both = asyncio.Barrier(2)

    async def meet(arguments: Mapping[str, object], call: Call) -> object:
        await both.wait()
        return None

    look = PlainTool(act=meet, timeout_seconds=5)
    provider = ScriptedProvider(calling(call("a"), call("b")), answer("x"))
    frames = await run(clean_redis_url, redis, provider, look)
    assert names(frames)[1:8] == [
        "tool_call", "tool_call", "tool_start", "tool_start", "tool_result", "tool_result", "step",
    ]  # fmt: skip
    assert provider.calls[1].turns[2:] == [
        Turn("tool", "null", tool_call_id="a"),
        Turn("tool", "null", tool_call_id="b"),
    ]


async def test_a_tool_does_not_run_before_the_log_has_its_start(
    clean_redis_url: str, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    look, append_all = PlainTool(), log.append_all
    asked, gate = asyncio.Event(), asyncio.Event()

    async def slow(client: Redis, batches: Sequence[log.Batch]) -> object:
        if any(frame.name == "tool_start" for batch in batches for frame in batch.frames):
            asked.set()
            await gate.wait()
            assert look.ran == []
        return await append_all(client, batches)

    monkeypatch.setattr("rejoin.worker.writer.log.append_all", slow)
    provider = ScriptedProvider(calling(call("a"), call("b")), answer("x"))
    async with worker_on(clean_redis_url, provider, tools=[look]):
        message_id = await post(redis, model=SCRIPT, tools=["look"])
        async with asyncio.timeout(5):
            await asked.wait()
        for _ in range(20):
            await asyncio.sleep(0)
        assert look.ran == []
        gate.set()
        await until_ended(redis, message_id)
    assert len(look.ran) == 2


async def test_a_tool_is_told_which_call_it_is(clean_redis_url: str, redis: Redis) -> None:
    look = PlainTool()
    steps = [calling(call("a")), calling(call("b")), answer("x")]
    frames = await run(
        clean_redis_url, redis, ScriptedProvider(*steps), look, metadata={"who": "me"}
    )
    message_id = data(frames, "start")[0]["message_id"]
    assert look.keys == [f"{message_id}:1:a", f"{message_id}:2:b"]
    assert look.ran[0].metadata == {"who": "me"}


async def broken(arguments: Mapping[str, object], call: Call) -> object:
    raise RuntimeError("it broke")


async def refusing(arguments: Mapping[str, object], call: Call) -> object:
    raise ToolError("not today")


async def sleeping(arguments: Mapping[str, object], call: Call) -> object:
    return await asyncio.Event().wait()


async def talking(arguments: Mapping[str, object], call: Call) -> object:
    return "x" * 1000


@pytest.mark.parametrize(
    ("look", "chunk", "error", "ran"),
    [
        (PlainTool(act=broken), call("c"), "it broke", True),
        (PlainTool(act=refusing), call("c"), "not today", True),
        (PlainTool(act=sleeping, timeout_seconds=0.02), call("c"), "timed out", True),
        (PlainTool(act=talking), call("c"), "longer than", True),
        (PlainTool(), call("c", "ring"), "there is no tool ring", False),
        (PlainTool(), call("c", bad=1), "bad is not a parameter", False),
        (PlainTool(), ToolCallChunk(ToolCall("c", "look", {}), '{"at": '), "not a JSON", False),
        (PlainTool(), call("c", at=float("nan")), "not JSON", False),
        (PlainTool(), call("c", at="\ud83d"), "not JSON", False),
    ],
)
async def test_a_call_that_fails_is_told_to_the_model_and_the_message_goes_on(
    clean_redis_url: str, redis: Redis, look: PlainTool, chunk: Chunk, error: str, ran: bool
) -> None:
    provider = ScriptedProvider(calling(chunk), answer("so"))
    settings = {"tool_output_bytes": 500}
    frames = await run(clean_redis_url, redis, provider, look, settings=settings)
    (failed,) = data(frames, "tool_error")
    assert error in failed["error"]
    assert ("tool_start" in names(frames), bool(look.ran)) == (ran, ran)
    told = provider.calls[1].turns[-1]
    assert (told.role, told.is_error, told.content) == ("tool", True, failed["error"])
    assert data(frames, "done")[0]["finish_reason"] == "stop"


async def test_a_tool_that_cannot_check_its_arguments_ends_its_call_alone(
    clean_redis_url: str, redis: Redis
) -> None:
    class Odd(PlainTool):
        def check(self, arguments: Mapping[str, object]) -> None:
            raise ZeroDivisionError

    provider = ScriptedProvider(calling(call("c")), answer("so"))
    frames = await run(clean_redis_url, redis, provider, Odd())
    assert "ZeroDivisionError" in data(frames, "tool_error")[0]["error"]
    assert names(frames)[-1] == "done"


async def test_arguments_cut_off_before_their_first_letter_reach_no_tool(
    clean_redis_url: str, redis: Redis
) -> None:
    look = PlainTool()
    cut = ToolCallChunk(ToolCall("b", "look", {}), "")
    step = calling(call("a", at=1), cut, reason=FinishReason.LENGTH)
    frames = await run(clean_redis_url, redis, ScriptedProvider(step, answer("x")), look)
    assert [call.tool_call_id for call in look.ran] == ["a"]
    assert "cut off" in data(frames, "tool_error")[0]["error"]
    assert data(frames, "step")[0] == {"step": 1, "finish_reason": "tool_calls"}


async def test_a_tool_that_no_worker_has_fails_the_message_and_is_named(
    clean_redis_url: str, redis: Redis
) -> None:
    provider = ScriptedProvider(answer("never"))
    frames = await run(clean_redis_url, redis, provider, PlainTool(), tools=["look", "ring"])
    (failed,) = data(frames, "failed")
    assert (failed["code"], failed["retryable"]) == ("invalid_request", False)
    assert "ring" in failed["message"]
    assert "look" not in failed["message"]
    assert provider.calls == []


@pytest.mark.parametrize("given", ["", "a b", "c", "x" * 65])
async def test_ids_are_unique_in_the_message_ours_where_the_providers_is_none(
    clean_redis_url: str, redis: Redis, given: str
) -> None:
    look = PlainTool()
    steps = [calling(call("c"), call(given)), calling(call("c")), answer("x")]
    provider = ScriptedProvider(*steps)
    frames = await run(clean_redis_url, redis, provider, look)
    ids = [told["tool_call_id"] for told in data(frames, "tool_call")]
    assert ids[0] == "c"
    assert len(set(ids)) == 3
    assert all(len(made) == 21 and made.startswith("call_") for made in ids[1:])
    shown = [call.tool_call_id for turn in provider.calls[2].turns for call in turn.tool_calls]
    assert shown == ids
    assert len({told["tool_call_id"] for told in data(frames, "tool_result")}) == 3


async def test_thinking_goes_back_to_its_provider_with_the_calls(
    clean_redis_url: str, redis: Redis
) -> None:
    block = {"type": "thinking", "signature": "s"}
    step = calling(ReasoningChunk("hm"), ThinkingChunk(block), call("c"))
    provider = ScriptedProvider(step, answer("x"))
    frames = await run(clean_redis_url, redis, provider, PlainTool())
    assert provider.calls[1].turns[1].thinking == (block,)
    assert b"signature" not in b"".join(frame.data for frame in frames)


async def test_usage_is_the_sum_of_all_steps(clean_redis_url: str, redis: Redis) -> None:
    steps = [
        calling(call("a"), call("b"), used=UsageChunk(10, 1)),
        calling(call("c"), used=UsageChunk(200, 2)),
        [*texts("x"), UsageChunk(3000, 3), FinishChunk(FinishReason.STOP)],
    ]
    frames = await run(clean_redis_url, redis, ScriptedProvider(*steps), PlainTool())
    (usage,) = data(frames, "usage")
    assert (usage["input_tokens"], usage["output_tokens"]) == (3210, 6)
    assert usage["estimated"] is False


async def test_at_the_bound_of_steps_calls_are_closed_and_no_model_is_called(
    clean_redis_url: str, redis: Redis
) -> None:
    look, provider = PlainTool(), ScriptedProvider(calling(call("a")))
    frames = await run(clean_redis_url, redis, provider, look, settings={"max_steps": 3})
    assert (len(provider.calls), len(look.ran)) == (3, 2)
    assert names(frames)[-5:] == ["tool_call", "tool_error", "step", "usage", "done"]
    assert data(frames, "done")[0]["finish_reason"] == "length"
    assert [told["step"] for told in data(frames, "step")] == [1, 2, 3]


async def test_calls_of_a_filtered_answer_are_not_run(clean_redis_url: str, redis: Redis) -> None:
    look = PlainTool()
    step = calling(call("a"), call("b"), reason=FinishReason.CONTENT_FILTER)
    frames = await run(clean_redis_url, redis, ScriptedProvider(step), look)
    assert names(frames) == [
        "start", "tool_call", "tool_call", "tool_error", "tool_error", "step", "usage", "done",
    ]  # fmt: skip
    assert data(frames, "done")[0]["finish_reason"] == "content_filter"
    assert look.ran == []


async def test_a_model_that_says_tool_calls_and_calls_none_has_stopped(
    clean_redis_url: str, redis: Redis
) -> None:
    provider = ScriptedProvider(answer("x", reason=FinishReason.TOOL_CALLS))
    frames = await run(clean_redis_url, redis, provider, PlainTool())
    assert data(frames, "done")[0]["finish_reason"] == "stop"


async def test_only_the_last_steps_text_is_held_to_the_schema(
    clean_redis_url: str, redis: Redis
) -> None:
    wanted = ResponseFormat("n", {"type": "integer"})
    steps = [calling(call("a"), words="let me look"), answer("no"), answer("7")]
    provider, look = ScriptedProvider(*steps), PlainTool()
    frames = await run(clean_redis_url, redis, provider, look, response_format=wanted)
    assert fold(frames).text == "let me look7"
    assert len(look.ran) == 1
    (reset,) = data(frames, "reset")
    step = next(frame for frame in frames if frame.name == "step")
    assert (reset["after"], reset["reason"]) == (str(step.id), "invalid_output")
    roles = [turn.role for turn in provider.calls[2].turns]
    assert roles == ["user", "assistant", "tool", "assistant", "user"]


async def test_a_break_among_the_calls_takes_them_back_and_no_tool_ran(
    clean_redis_url: str, redis: Redis
) -> None:
    look = PlainTool()
    steps = [
        calling(call("a"), used=UsageChunk(1, 1)),
        [*texts("b"), call("b"), call("c"), BROKE],
        calling(call("d")),
        answer("x"),
    ]
    frames = await run(
        clean_redis_url,
        redis,
        ScriptedProvider(*steps),
        look,
        settings={"provider_retries": 2},
    )
    assert [call.tool_call_id for call in look.ran] == ["a", "d"]
    (reset,) = data(frames, "reset")
    step = next(frame for frame in frames if frame.name == "step")
    assert reset["after"] == str(step.id)
    kept = fold(frames)
    assert [event.fields["tool_call_id"] for event in kept.named("tool_call")] == ["a", "d"]
    assert kept.text == "x"
    assert data(frames, "done")[0]["text_chars"] == 1


async def test_a_failure_among_the_calls_closes_them(clean_redis_url: str, redis: Redis) -> None:
    step: list[Line] = [call("a"), call("b"), BROKE]
    frames = await run(clean_redis_url, redis, ScriptedProvider(step), PlainTool())
    assert names(frames) == ["start", "tool_call", "tool_error", "usage", "failed"]


async def test_a_fallback_goes_on_after_the_finished_steps_and_is_shown_them(
    clean_redis_url: str, redis: Redis
) -> None:
    look = PlainTool()
    steps = [
        calling(call("a", at=1), words="hm"),
        [*texts("half"), BROKE],
        calling(call("b")),
        answer("so"),
    ]
    provider = ScriptedProvider(*steps)
    frames = await run(clean_redis_url, redis, provider, look, fallbacks=[OTHER])
    assert [call.model for call in provider.calls] == ["x", "x", "y", "y"]
    assert provider.calls[2].turns[1:] == [
        Turn("assistant", "hm", (ToolCall("a", "look", {"at": 1}),)),
        Turn("tool", '{"at":1}', tool_call_id="a"),
    ]
    assert len(look.ran) == 2
    (reset,) = data(frames, "reset")
    assert reset["model"] == OTHER
    assert fold(frames).text == "hmso"


async def test_progress_is_told_between_start_and_result(
    clean_redis_url: str, redis: Redis
) -> None:
    async def report(arguments: Mapping[str, object], call: Call) -> object:
        call.report("done", 0.5)
        return "ok"

    provider = ScriptedProvider(calling(call("c")), answer("x"))
    frames = await run(clean_redis_url, redis, provider, PlainTool(act=report))
    assert names(frames)[1:6] == ["tool_call", "tool_start", "data", "tool_result", "step"]
    assert data(frames, "data") == [{"name": "done", "value": 0.5, "tool_call_id": "c"}]


async def test_reports_without_end_cost_no_memory_and_hold_up_no_result(
    clean_redis_url: str, redis: Redis
) -> None:
    async def report(arguments: Mapping[str, object], call: Call) -> object:
        for _ in range(3000):
            call.report("n", "x" * 1000)
        return "ok"

    provider = ScriptedProvider(calling(call("c")), answer("x"))
    frames = await run(clean_redis_url, redis, provider, PlainTool(act=report))
    assert 100 < len(data(frames, "data")) < 1500
    assert names(frames)[-1] == "done"


async def test_a_log_full_in_a_tool_ends_the_message(clean_redis_url: str, redis: Redis) -> None:
    async def report(arguments: Mapping[str, object], call: Call) -> object:
        while True:
            call.report("n", "x" * 200)
            await asyncio.sleep(0)

    provider = ScriptedProvider(calling(call("c")), answer("x"))
    frames = await run(
        clean_redis_url, redis, provider, PlainTool(act=report), settings={"max_log_bytes": 4096}
    )
    assert names(frames)[-3:] == ["tool_error", "usage", "done"]
    assert data(frames, "tool_error")[0]["error"].startswith("outcome unknown")
    assert data(frames, "done")[0]["finish_reason"] == "length"


async def test_the_messages_deadline_holds_for_its_tools(
    clean_redis_url: str, redis: Redis
) -> None:
    provider = ScriptedProvider(calling(call("c")), answer("x"))
    look = PlainTool(act=sleeping)
    frames = await run(clean_redis_url, redis, provider, look, settings={"timeout_total": 0.3})
    assert names(frames)[-4:] == ["tool_start", "tool_error", "usage", "failed"]
    assert data(frames, "failed")[0]["code"] == "deadline_exceeded"


async def test_a_cancel_stops_the_tool_and_closes_its_call(
    clean_redis_url: str, redis: Redis
) -> None:
    stopped = asyncio.Event()

    async def wait(arguments: Mapping[str, object], call: Call) -> object:
        try:
            return await asyncio.Event().wait()
        finally:
            stopped.set()

    look, provider = PlainTool(act=wait), ScriptedProvider(calling(call("a"), call("b", "none")))
    async with worker_on(clean_redis_url, provider, tools=[look]):
        message_id = await post(redis, model=SCRIPT, tools=["look"])
        await until_true(lambda: bool(look.ran))
        await record.cancel(redis, message_id)
        frames = await until_ended(redis, message_id)
    assert stopped.is_set()
    assert names(frames)[-3:] == ["tool_error", "usage", "done"]
    assert data(frames, "done")[0]["finish_reason"] == "cancelled"
    assert open_calls(fold(frames)) == []


STEPS = [
    calling(call("a"), call("b"), words="one "),
    calling(call("c"), call("d"), words="two "),
    answer("three ", "four"),
]


@pytest.mark.parametrize("at", range(1, 22))
async def test_a_cancel_at_any_event_ends_the_message_with_every_call_closed(
    clean_redis_url: str, redis: Redis, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    message_id = await accept(redis, model=SCRIPT, tools=["look"])
    appended, append_all = 0, log.append_all

    async def cancelling(client: Redis, batches: Sequence[log.Batch]) -> object:
        nonlocal appended
        before = appended
        appended += sum(len(batch.frames) for batch in batches)
        if before < at <= appended:
            await record.cancel(redis, message_id)
        return await append_all(client, batches)

    monkeypatch.setattr("rejoin.worker.writer.log.append_all", cancelling)
    look = PlainTool()
    async with worker_on(clean_redis_url, ScriptedProvider(*STEPS), tools=[look]):
        await enqueue(redis, message_id)
        frames = await until_ended(redis, message_id)
    assert open_calls(fold(frames)) == []
    assert names(frames)[-2:] == ["usage", "done"]
    assert names(frames).count("usage") == 1
    assert data(frames, "done") == [
        {"finish_reason": "cancelled", "text_chars": len(fold(frames).text)}
    ]
    assert len(look.keys) == len(set(look.keys))


async def test_a_silent_provider_after_a_tool_step_is_asked_again_for_that_step_alone(
    clean_redis_url: str, redis: Redis
) -> None:
    look = PlainTool()
    provider = ScriptedProvider(calling(call("a")), [SILENCE], answer("x"))
    settings = {"timeout_first_token": 0.1, "provider_retries": 2}
    frames = await run(clean_redis_url, redis, provider, look, settings=settings)
    assert names(frames)[-5:] == ["retry", "text", "step", "usage", "done"]
    assert len(look.ran) == 1


async def test_after_a_message_with_tools_no_key_is_left_without_an_expiry(
    clean_redis_url: str, redis: Redis
) -> None:
    frames = await run(clean_redis_url, redis, ScriptedProvider(*STEPS), PlainTool())
    assert names(frames)[-1] == "done"
    lasting = [name async for name in redis.scan_iter() if await redis.ttl(name) == -1]
    assert [name for name in lasting if name != keys.OWNERS.encode()] == []

"""One model call: its chunks become events in order, and any way out closes the provider."""

import asyncio
import json
from collections.abc import Sequence
from decimal import Decimal
from typing import cast

import pytest
from redis.asyncio import Redis

from rejoin.shared.errors import ProviderError
from rejoin.shared.events import FailureCode, FinishReason, Usage
from rejoin.shared.frames import Frame
from rejoin.worker.appender import Appender
from rejoin.worker.deadlines import Deadlines
from rejoin.worker.providers.base import (
    Chunk,
    FinishChunk,
    ModelRequest,
    ReasoningChunk,
    TextChunk,
    ThinkingChunk,
    ToolCall,
    ToolCallChunk,
    Turn,
    UsageChunk,
    WorkingChunk,
)
from rejoin.worker.step import Step
from rejoin.worker.stopping import Stop, Stoppable, Stopped
from rejoin.worker.writer import MOST_WAITING_BYTES
from tests.support.scripted_provider import SILENCE, Line, ScriptedProvider, answer, texts
from tests.unit.worker.appending import HeldLog, new_writer, running

NO_REDIS = cast(Redis, None)
REQUEST = ModelRequest("m", [Turn("user", "12345678")])


class Call:
    """A step with everything it needs."""

    def __init__(self, script: Sequence[Line], held: HeldLog) -> None:
        self.provider = ScriptedProvider(script)
        self.step = Step(REQUEST, "script/x")
        self.part = Stoppable()
        self._held = held

    async def run(self, *, first: float = 60, idle: float = 60) -> FinishReason:
        """Run it to its end, and let what it wrote be stored."""
        deadlines = Deadlines(
            self.part, first_token_seconds=first, idle_seconds=idle, total_seconds=60
        )
        async with running(Appender(NO_REDIS)) as appender:
            writer = new_writer(appender, self.part.stop)
            try:
                return await self.step.run(self.provider, writer, self.part, deadlines)
            finally:
                await writer.flush()

    def frames(self) -> list[Frame]:
        """The events."""
        return [frame for (sent,) in self._held.rounds for frame in sent.frames]

    def written(self) -> list[tuple[str, str]]:
        """The events, each by its name and text."""
        return [(frame.name, json.loads(frame.json)["text"]) for frame in self.frames()]


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> HeldLog:
    return HeldLog(monkeypatch, held=False)


async def test_chunks_become_events_in_their_order(held: HeldLog) -> None:
    script = [
        ReasoningChunk("hm "),
        *texts("one ", "two "),
        ReasoningChunk("so"),
        *answer("three", reason=FinishReason.LENGTH),
    ]
    call = Call(script, held)
    assert await call.run() is FinishReason.LENGTH
    assert call.written() == [
        ("reasoning", "hm "),
        ("text", "one "),
        ("text", "two "),
        ("reasoning", "so"),
        ("text", "three"),
    ]
    assert (call.step.text_chars, call.step.reasoning_chars) == (13, 5)
    assert call.provider.open == 0
    assert call.provider.calls == [REQUEST]


async def test_the_first_piece_says_how_much_was_shown_for_it(held: HeldLog) -> None:
    call = Call([ReasoningChunk("hm"), *answer("one", "two")], held)
    await call.run()
    assert [frame.private for frame in call.frames()] == [b'{"shown_chars":8}', b"", b""]


async def test_thinking_blocks_are_gathered_and_not_shown(held: HeldLog) -> None:
    call = Call([ThinkingChunk({"a": 1}), ThinkingChunk({"b": 2}), *answer("x")], held)
    await call.run()
    assert call.step.thinking == [{"a": 1}, {"b": 2}]
    assert call.written() == [("text", "x")]


async def test_the_last_usage_counts(held: HeldLog) -> None:
    script = [UsageChunk(1, 1), *answer("a"), UsageChunk(7, 8, 2, 3, Decimal("0.10"))]
    call = Call(script, held)
    await call.run()
    assert call.step.usage == Usage(7, 8, 2, 3, "0.1", estimated=False)


async def test_what_was_reported_first_stands_for_an_answer_that_breaks_off(held: HeldLog) -> None:
    call = Call([UsageChunk(900, 1, cached_tokens=800), *texts("12345678")], held)
    with pytest.raises(ProviderError):
        await call.run()
    assert call.step.usage == Usage(900, 2, 0, 800, None, estimated=True)


async def test_a_first_report_is_no_first_token(held: HeldLog) -> None:
    call = Call([UsageChunk(900, 1), SILENCE], held)
    with pytest.raises(Stopped) as stopped:
        await call.run(first=0.05, idle=0.01)
    assert stopped.value.reason is Stop.FIRST_TOKEN


async def test_a_model_at_work_is_not_silent(held: HeldLog) -> None:
    call = Call([WorkingChunk(), SILENCE], held)
    with pytest.raises(Stopped) as stopped:
        await call.run(first=0.05, idle=0.01)
    assert stopped.value.reason is Stop.IDLE


async def test_without_a_usage_it_is_estimated(held: HeldLog) -> None:
    call = Call(answer("123456789"), held)
    await call.run()
    assert call.step.usage == Usage(2, 3, 0, 0, None, estimated=True)


def test_before_the_call_nothing_was_used() -> None:
    assert Step(REQUEST, "script/x").usage == Usage()


async def test_an_answer_without_a_finish_reason_broke_off(held: HeldLog) -> None:
    call = Call(texts("one ", "two"), held)
    with pytest.raises(ProviderError) as broke:
        await call.run()
    assert (broke.value.code, broke.value.retryable) == (FailureCode.PROVIDER_PROTOCOL, True)
    assert call.written() == [("text", "one "), ("text", "two")]
    assert call.step.usage.estimated


async def test_a_providers_error_passes_after_what_was_said_before_it(held: HeldLog) -> None:
    error = ProviderError("overloaded", code="provider_unavailable", retryable=True, status=529)
    call = Call([*texts("one"), error], held)
    with pytest.raises(ProviderError) as raised:
        await call.run()
    assert raised.value is error
    assert call.written() == [("text", "one")]
    assert call.provider.open == 0


async def test_halves_of_a_pair_in_two_chunks_are_one_character(held: HeldLog) -> None:
    call = Call(answer("a\ud83d", "\ude00b", "\ude00"), held)
    await call.run()
    assert call.written() == [("text", "a"), ("text", "😀b"), ("text", "\ufffd")]
    assert call.step.text_chars == 4


async def test_text_and_reasoning_keep_their_halves_apart(held: HeldLog) -> None:
    script: list[Chunk] = [TextChunk("\ud83d"), ReasoningChunk("\ud83c"), TextChunk("\ude00")]
    call = Call([*script, ReasoningChunk("\udf89"), FinishChunk(FinishReason.STOP)], held)
    await call.run()
    assert call.written() == [("text", "😀"), ("reasoning", "🎉")]


async def test_a_half_left_at_the_end_or_at_a_break_is_replaced(held: HeldLog) -> None:
    call = Call(answer("a\ud83d"), held)
    await call.run()
    assert call.written() == [("text", "a"), ("text", "\ufffd")]


async def test_a_stop_closes_a_silent_provider(held: HeldLog) -> None:
    call = Call([*texts("one", "\ud83d"), SILENCE], held)
    running_ = asyncio.create_task(call.run())
    await held.until_rounds(1)
    call.part.stop(Stop.CANCELLED)
    with pytest.raises(Stopped) as stopped:
        await running_
    assert stopped.value.reason is Stop.CANCELLED
    assert call.provider.open == 0
    assert call.written() == [("text", "one"), ("text", "\ufffd")]
    assert call.step.text_chars == 4


async def test_a_stop_from_before_calls_no_provider(held: HeldLog) -> None:
    call = Call(answer("one"), held)
    call.part.stop(Stop.HANDED_OVER)
    with pytest.raises(Stopped):
        await call.run()
    assert call.provider.calls == []
    assert call.step.called_at is None
    assert call.step.usage == Usage()


async def test_a_silent_provider_is_left_at_its_deadline(held: HeldLog) -> None:
    for script, reason in (([SILENCE], Stop.FIRST_TOKEN), ([*texts("a"), SILENCE], Stop.IDLE)):
        call = Call(script, held)
        with pytest.raises(Stopped) as stopped:
            await call.run(first=0.05, idle=0.05)
        assert stopped.value.reason is reason
        assert call.provider.open == 0


async def test_somebody_elses_cancellation_closes_the_provider_and_passes(held: HeldLog) -> None:
    call = Call([*texts("one"), SILENCE], held)
    running_ = asyncio.create_task(call.run())
    await held.until_rounds(1)
    running_.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running_
    assert call.provider.open == 0


async def test_a_provider_is_not_read_on_while_too_much_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    held = HeldLog(monkeypatch)
    big = "x" * (MOST_WAITING_BYTES // 4)
    call = Call(answer(*[big] * 40), held)
    running_ = asyncio.create_task(call.run())
    await held.until_rounds(1)
    for _ in range(100):
        await asyncio.sleep(0)
    waiting = call.provider.given
    assert waiting < 10
    held.held = False
    held.answer()
    await running_
    assert call.provider.given == 41
    assert "".join(text for _, text in call.written()) == big * 40


async def test_a_provider_that_nobody_reads_is_not_silent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    held = HeldLog(monkeypatch)
    big = "x" * (MOST_WAITING_BYTES // 2)
    call = Call(answer(*[big] * 6), held)
    running_ = asyncio.create_task(call.run(idle=0.05))
    await held.until_rounds(1)
    await asyncio.sleep(0.2)  # four times the silence that is allowed
    assert call.part.reason is None
    held.held = False
    held.answer()
    assert await running_ is FinishReason.STOP
    assert "".join(text for _, text in call.written()) == big * 6


def called(call_id: str, **arguments: object) -> ToolCallChunk:
    return ToolCallChunk(ToolCall(call_id, "look", arguments))


def private(frame: Frame) -> dict[str, object]:
    told: dict[str, object] = json.loads(frame.private) if frame.private else {}
    return told


async def test_a_call_is_told_when_the_next_one_comes_and_the_last_one_with_the_models_end(
    held: HeldLog,
) -> None:
    block = {"type": "thinking"}
    script: list[Chunk] = [ThinkingChunk(block), called("a"), called("b"), called("c")]
    call = Call([*script, FinishChunk(FinishReason.TOOL_CALLS), UsageChunk(5, 6)], held)
    assert await call.run() is FinishReason.TOOL_CALLS
    assert [frame.name for frame in call.frames()] == ["tool_call", "tool_call"]
    assert private(call.frames()[0]) == {"shown_chars": 8}
    assert private(call.frames()[1]) == {}
    async with running(Appender(NO_REDIS)) as appender:
        writer = new_writer(appender, call.part.stop)
        step = call.step.end(writer, call.step.usage)
        await writer.flush()
    told = private(call.frames()[-1])
    assert told["usage"] == {
        "input_tokens": 5,
        "output_tokens": 6,
        "reasoning_tokens": 0,
        "cached_tokens": 0,
        "cost_usd": None,
        "estimated": False,
    }
    assert (told["model"], told["finish_reason"]) == ("script/x", "tool_calls")
    assert told["thinking"] == [block]
    assert [one.tool_call_id for one in step.calls] == ["a", "b", "c"]


async def test_calls_of_an_answer_that_breaks_off_are_counted_and_its_last_one_untold(
    held: HeldLog,
) -> None:
    call = Call([called("a", at="12345"), called("b")], held)
    with pytest.raises(ProviderError):
        await call.run()
    assert [frame.name for frame in call.frames()] == ["tool_call"]
    assert call.step.gave
    assert call.step.usage.estimated
    assert call.step.usage.output_tokens == 6  # look{"at":"12345"} and look{}, 4 a token


async def test_a_single_call_of_an_answer_that_breaks_off_left_nothing(held: HeldLog) -> None:
    call = Call([called("a")], held)
    with pytest.raises(ProviderError):
        await call.run()
    assert call.frames() == []
    assert not call.step.gave

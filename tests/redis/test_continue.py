"""An answer that breaks off and is gone on with: its text stays, and is joined to what follows."""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from redis.asyncio import Redis

from rejoin.shared import log, record
from rejoin.shared.errors import ProviderError
from rejoin.shared.events import Event, FailureCode, FinishReason, Reasoning, Start, Text, dumps
from rejoin.shared.fold import fold
from rejoin.shared.frames import Frame, encode
from rejoin.shared.ids import EventId
from rejoin.shared.request import ResponseFormat
from rejoin.worker.agents import Run, Said, agent
from rejoin.worker.continuing import GO_ON
from rejoin.worker.providers.base import (
    Chunk,
    FinishChunk,
    ModelRequest,
    ReasoningChunk,
    TextChunk,
    UsageChunk,
    WorkingChunk,
)
from tests.support.in_process import SCRIPT, until_ended, until_events, worker_on
from tests.support.logs import data, names
from tests.support.messages import LIFE, accept, claim, enqueue, post
from tests.support.scripted_provider import SILENCE, Line, ScriptedProvider, answer, texts
from tests.support.tools import PlainTool, call, calling

BROKE = ProviderError("it broke", code=FailureCode.PROVIDER_UNAVAILABLE, retryable=True)
REFUSED = ProviderError("no prefill", code=FailureCode.INVALID_REQUEST, retryable=False, status=400)
TOLD = "Grüße aus der Ferne, und bis bald."


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try again without a pause."""
    monkeypatch.setattr("rejoin.worker.asking.pause_seconds", lambda failures, after: 0.0)


def going_on(*scripts: Sequence[Line]) -> ScriptedProvider:
    """A provider whose models go on with a text of their own."""
    provider = ScriptedProvider(*scripts)
    provider.goes_on = True
    return provider


def shown(provider: ScriptedProvider, at: int = -1) -> list[tuple[str, object]]:
    """The turns of a call."""
    return [(turn.role, turn.content) for turn in provider.calls[at].turns]


def told(frames: Sequence[Frame]) -> list[tuple[object, object]]:
    """The resets: what stays, and why."""
    return [(reset["after"], reset["reason"]) for reset in data(frames, "reset")]


async def run(url: str, redis: Redis, provider: ScriptedProvider, **fields: object) -> list[Frame]:
    """Post a message that is to be gone on with; its log."""
    settings: dict[str, Any] = {"provider_retries": 3, "tools": fields.pop("kit_tools", ())}
    async with worker_on(url, provider, **settings):
        asked = {"model": SCRIPT, "recover": "continue"} | fields
        return await until_ended(redis, await post(redis, "hi", **asked))  # type: ignore[arg-type]


async def left_with(redis: Redis, *events: Event, **fields: object) -> str:
    """A message whose worker was lost after these events; its job is due."""
    asked = {"model": SCRIPT, "recover": "continue"} | fields
    message_id = await accept(redis, "hi", **asked)  # type: ignore[arg-type]
    claimed = await claim(redis, message_id, "lost")
    ids = [EventId(1, at) for at in range(len(events) + 1)]
    begin = Start(message_id, claimed.conversation_id, str(asked["model"]), 1, "")
    note = dumps({"worker": "lost", "at": "2026-01-01T00:00:00Z"}).encode()
    frames = [
        Frame(one, encode(one, event), b"" if at else note)
        for at, (one, event) in enumerate(zip(ids, [begin, *events], strict=True))
    ]
    await log.append(redis, log.Batch(message_id, claimed.token, frames, LIFE))
    await enqueue(redis, message_id)
    return message_id


def assert_said(frames: Sequence[Frame], text: str, reason: str = "stop") -> None:
    message = fold(frames)
    assert message.text == text
    assert data(frames, "done") == [{"finish_reason": reason, "text_chars": len(text)}]
    assert not message.gap


async def test_a_break_takes_nothing_back_and_the_model_goes_on_with_its_own_text(
    clean_redis_url: str, redis: Redis
) -> None:
    used = UsageChunk(5, 6)
    first = [*texts("Grüße ", "aus "), BROKE]
    provider = going_on(first, [*answer(" der Ferne, ", "und bis bald."), used])
    frames = await run(clean_redis_url, redis, provider)
    assert_said(frames, TOLD)
    assert names(frames) == [
        "start", "text", "text", "reset", "text", "text", "step", "usage", "done",
    ]  # fmt: skip
    assert told(frames) == [("1-2", "provider_unavailable")]
    assert shown(provider) == [("user", "hi"), ("assistant", "Grüße aus")]
    (usage,) = data(frames, "usage")
    assert usage["estimated"]
    assert usage["output_tokens"] > 6


async def test_a_model_without_such_means_is_asked_by_a_turn_and_repeats_nothing(
    clean_redis_url: str, redis: Redis
) -> None:
    first = [*texts("Grüße aus der ", "Fer"), BROKE]
    provider = ScriptedProvider(first, answer("Grüße aus ", "der Ferne, ", "und bis bald."))
    frames = await run(clean_redis_url, redis, provider)
    assert_said(frames, TOLD)
    assert shown(provider) == [
        ("user", "hi"),
        ("assistant", "Grüße aus der Fer"),
        ("user", GO_ON + "Grüße aus der Fer"),
    ]
    assert [text["text"] for text in data(frames, "text")][2:] == ["ne, ", "und bis bald."]


class Further(ScriptedProvider):
    """It goes on behind the prefix that it is shown: two characters, and falls silent the first
    time that it is asked of a message; then to the end.
    """

    def __init__(self) -> None:
        super().__init__()
        self.goes_on = True
        self.shown: dict[str, list[str]] = {}

    @asynccontextmanager
    async def stream(self, request: ModelRequest) -> AsyncIterator[AsyncIterator[Chunk]]:
        prefix = str(request.turns[-1].content)
        shown = self.shown.setdefault(request.reference, [])
        shown.append(prefix)
        assert TOLD.startswith(prefix)
        rest = TOLD[len(prefix) :]
        script = [*texts(*rest[:2]), SILENCE] if len(shown) == 1 else answer(*rest)
        self._scripts = [*([SILENCE] for _ in self.calls), script]
        async with super().stream(request) as chunks:
            yield chunks


async def test_workers_lost_at_any_character_one_after_another_leave_no_hole_and_no_repeat(
    clean_redis_url: str, redis: Redis
) -> None:
    provider = Further()
    message_ids = {
        cut: await left_with(redis, *map(Text, TOLD[:cut])) for cut in range(1, len(TOLD))
    }
    async with worker_on(clean_redis_url, provider, lease_seconds=0.3) as first:
        for cut, message_id in message_ids.items():
            more = 1 if TOLD[cut - 1].isspace() or cut == len(TOLD) - 1 else 2
            await until_events(redis, message_id, 1 + cut + 1 + more)
        await first.die()
    async with worker_on(clean_redis_url, provider, lease_seconds=0.3, name="worker-2"):
        for cut, message_id in message_ids.items():
            frames = await until_ended(redis, message_id)
            assert_said(frames, TOLD)
            before, after = told(frames)
            assert before == (f"1-{cut}", "takeover")
            assert str(after[0]).startswith("2-")
            first_shown, then_shown = provider.shown[message_id]
            assert first_shown == TOLD[:cut].rstrip()
            assert then_shown.startswith(first_shown)
            assert len(then_shown) > len(first_shown)


async def test_another_model_goes_on_in_mid_text(clean_redis_url: str, redis: Redis) -> None:
    frames = await run(
        clean_redis_url,
        redis,
        ScriptedProvider([*texts("one two "), BROKE]),
        fallbacks=["demo/echo?rate=0"],
    )
    # The echo says the user's words; what it is shown is none of them.
    assert_said(frames, "one two hi")
    assert [reset["model"] for reset in data(frames, "reset")][-1] == "demo/echo?rate=0"
    assert all(reset["after"] is not None for reset in data(frames, "reset"))


async def test_who_refuses_the_text_begins_anew(clean_redis_url: str, redis: Redis) -> None:
    provider = going_on([*texts("one "), BROKE], [REFUSED], [*texts("a "), BROKE], answer("b"))
    frames = await run(clean_redis_url, redis, provider)
    assert_said(frames, "b")
    assert told(frames) == [
        ("1-1", "provider_unavailable"),
        (None, "invalid_request"),
        (None, "provider_unavailable"),
    ]
    assert [len(made.turns) for made in provider.calls] == [1, 2, 1, 1]
    assert {reset["model"] for reset in data(frames, "reset")} == {SCRIPT}


async def test_a_rest_that_comes_as_thoughts_is_done_again_as_text(
    clean_redis_url: str, redis: Redis
) -> None:
    lost: list[Line] = [ReasoningChunk(" two"), FinishChunk(FinishReason.STOP)]
    provider = going_on([*texts("one"), BROKE], lost, answer("one two"))
    frames = await run(clean_redis_url, redis, provider)
    assert_said(frames, "one two")
    assert [after for after, _ in told(frames)] == ["1-1", None]
    assert fold(frames).reasoning == ""


async def test_a_bad_request_without_a_text_shown_fails(clean_redis_url: str, redis: Redis) -> None:
    provider = going_on([REFUSED])
    frames = await run(clean_redis_url, redis, provider)
    assert (names(frames)[-1], len(provider.calls)) == ("failed", 1)


async def test_a_later_step_is_gone_on_with_behind_the_results_and_seen_whole_by_the_next(
    clean_redis_url: str, redis: Redis
) -> None:
    look = PlainTool()
    provider = going_on(
        calling(call("a", at=1), words="first "),
        [*texts("sec"), BROKE],
        calling(call("b", at=2), words="ond "),
        answer("third"),
    )
    frames = await run(clean_redis_url, redis, provider, tools=["look"], kit_tools=[look])
    assert_said(frames, "first second third")
    assert [one.tool_call_id for one in look.ran] == ["a", "b"]
    assert [role for role, _ in shown(provider, 2)] == ["user", "assistant", "tool", "assistant"]
    assert shown(provider, 2)[-1] == ("assistant", "sec")
    said = [content for role, content in shown(provider, 3) if role == "assistant"]
    assert said == ["first ", "second "]


async def test_a_text_that_waits_to_be_told_from_a_repetition_goes_out_before_a_call(
    clean_redis_url: str, redis: Redis
) -> None:
    provider = ScriptedProvider(
        [*texts("one two"), BROKE], calling(call("a"), call("b"), words="one tw"), answer(" three")
    )
    frames = await run(clean_redis_url, redis, provider, tools=["look"], kit_tools=[PlainTool()])
    assert names(frames)[:6] == ["start", "text", "reset", "text", "tool_call", "tool_call"]
    assert_said(frames, "one twoone tw three")


@pytest.mark.parametrize(
    "open_call",
    [
        [call("a", at=1), call("b", at=2)],
        [call("a", at=1)],  # which no event tells of before the next one
        [WorkingChunk(5)],  # of the arguments
    ],
)
async def test_a_break_after_a_call_was_begun_begins_the_step_anew(
    clean_redis_url: str, redis: Redis, open_call: list[Line]
) -> None:
    look = PlainTool()
    broken = [*texts("one "), *open_call, BROKE]
    provider = going_on(broken, answer("anew"))
    frames = await run(clean_redis_url, redis, provider, tools=["look"], kit_tools=[look])
    assert_said(frames, "anew")
    assert told(frames) == [(None, "provider_unavailable")]
    assert look.ran == []


@pytest.mark.parametrize(
    "fields",
    [
        {"recover": "restart"},
        {"response_format": ResponseFormat("x", {"type": "string"})},
    ],
)
async def test_without_it_and_with_a_json_schema_the_step_begins_anew(
    clean_redis_url: str, redis: Redis, fields: dict[str, object]
) -> None:
    provider = going_on([*texts('"on'), BROKE], answer('"two"'))
    frames = await run(clean_redis_url, redis, provider, **fields)
    assert_said(frames, '"two"')
    assert told(frames) == [(None, "provider_unavailable")]


async def test_an_agent_neither_goes_on_with_a_text_nor_is_gone_on_with(
    clean_redis_url: str, redis: Redis
) -> None:
    @agent(name="mine")
    async def mine(run: Run) -> AsyncGenerator[Said, None]:
        yield "its own"

    broken = going_on([*texts("one "), BROKE])
    async with worker_on(clean_redis_url, broken, agents=[mine]):
        message_id = await left_with(redis, Text("its "), model="agent/mine")
        frames = [await until_ended(redis, message_id)]
        asked = {"model": SCRIPT, "fallbacks": ["agent/mine"], "recover": "continue"}
        frames.append(await until_ended(redis, await post(redis, "hi", **asked)))  # type: ignore[arg-type]
    for log_ in frames:
        assert_said(log_, "its own")
        assert [reset["after"] for reset in data(log_, "reset")] == [None]


async def test_a_model_that_thought_or_is_to_think_is_asked_by_a_turn(
    clean_redis_url: str, redis: Redis
) -> None:
    thought = [ReasoningChunk("hm"), *texts("one "), BROKE]
    for script, effort in ((thought, None), ([*texts("one "), BROKE], "high")):
        provider = going_on(script, [ReasoningChunk("so"), *answer("one two")])
        frames = await run(clean_redis_url, redis, provider, reasoning_effort=effort)
        assert_said(frames, "one two")
        assert [role for role, _ in shown(provider)] == ["user", "assistant", "user"]
    assert fold(frames).reasoning == "so"


async def test_a_cancel_keeps_the_joined_text(clean_redis_url: str, redis: Redis) -> None:
    provider = going_on([*texts("two "), SILENCE])
    message_id = await left_with(redis, Text("one "))
    async with worker_on(clean_redis_url, provider):
        await until_events(redis, message_id, 4)
        await record.cancel(redis, message_id)
        frames = await until_ended(redis, message_id)
    assert_said(frames, "one two ", "cancelled")


async def test_a_cancel_before_the_next_token_keeps_the_text_so_far(
    clean_redis_url: str, redis: Redis
) -> None:
    message_id = await left_with(redis, Text("one "))
    await record.cancel(redis, message_id)
    async with worker_on(clean_redis_url, going_on([SILENCE])):
        frames = await until_ended(redis, message_id)
    assert_said(frames, "one ", "cancelled")


@pytest.mark.parametrize("reason", [FinishReason.LENGTH, FinishReason.CONTENT_FILTER])
async def test_the_end_is_the_one_that_the_model_gives(
    clean_redis_url: str, redis: Redis, reason: FinishReason
) -> None:
    provider = going_on([*texts("one "), BROKE], [TextChunk("two"), FinishChunk(reason)])
    assert_said(await run(clean_redis_url, redis, provider), "one two", reason.value)


async def test_a_text_that_was_complete_is_ended_without_more(
    clean_redis_url: str, redis: Redis
) -> None:
    provider = going_on([*texts("all"), BROKE], [FinishChunk(FinishReason.STOP)])
    frames = await run(clean_redis_url, redis, provider)
    assert_said(frames, "all")
    assert names(frames) == ["start", "text", "reset", "step", "usage", "done"]


async def test_half_a_character_at_the_break_is_not_given_for_a_whole_one(
    clean_redis_url: str, redis: Redis
) -> None:
    provider = going_on([*texts("a \ud83d"), BROKE], answer(" \ud83d", "\ude00 b"))
    frames = await run(clean_redis_url, redis, provider)
    assert_said(frames, "a 😀 b")


async def test_a_break_in_the_midst_of_a_repetition_leaves_nothing_of_it(
    clean_redis_url: str, redis: Redis
) -> None:
    provider = ScriptedProvider(
        [*texts("one two three"), BROKE], [*texts("one t"), BROKE], answer("one two three four")
    )
    frames = await run(clean_redis_url, redis, provider)
    assert_said(frames, "one two three four")
    assert names(frames).count("retry") == 1


async def test_a_break_in_thinking_begins_anew(clean_redis_url: str, redis: Redis) -> None:
    message_id = await left_with(redis, Reasoning("hm"))
    async with worker_on(clean_redis_url, going_on(answer("so"))):
        frames = await until_ended(redis, message_id)
    assert_said(frames, "so")
    assert told(frames) == [(None, "takeover")]
    assert fold(frames).reasoning == ""


async def test_the_demo_goes_on_where_its_worker_was_lost(
    clean_redis_url: str, redis: Redis
) -> None:
    for partial in ("h", "hi"):
        message_id = await left_with(redis, Text(partial), model="demo/echo?rate=0")
        async with worker_on(clean_redis_url):
            assert_said(await until_ended(redis, message_id), "hi")


async def test_a_message_that_only_lacks_its_end_is_ended_with_its_text(
    clean_redis_url: str, redis: Redis
) -> None:
    message_id = await left_with(redis, Text("one "))
    async with worker_on(clean_redis_url, going_on([SILENCE]), max_attempts=1):
        frames = await until_ended(redis, message_id)
    assert fold(frames).text == "one "
    assert data(frames, "failed")[0]["code"] == "attempts_exhausted"

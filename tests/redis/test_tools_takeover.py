"""A worker is lost at any event of a message with tools: what was done stays done."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import pytest
from redis.asyncio import Redis

from rejoin.shared import ending, keys, log, record
from rejoin.shared.errors import ProviderError
from rejoin.shared.events import FinishReason
from rejoin.shared.fold import fold
from rejoin.shared.frames import Frame
from rejoin.shared.tool_calls import calls_of, open_calls
from rejoin.worker.providers.base import (
    Chunk,
    FinishChunk,
    ModelRequest,
    ToolCall,
    ToolCallChunk,
    UsageChunk,
)
from rejoin.worker.tools.base import Call, OnUnknownOutcome
from tests.support.in_process import SCRIPT, until_ended, worker_on
from tests.support.logs import data, names
from tests.support.messages import LIFE, accept, claim, enqueue, post, until, until_true
from tests.support.scripted_provider import SILENCE, ScriptedProvider, answer, texts
from tests.support.tools import PlainTool, call, calling

TOKENS: Final = (10, 200, 3000)
EVENTS: Final = 22  # of the whole message
FAIL, RETRY = OnUnknownOutcome.FAIL, OnUnknownOutcome.RETRY


class ByStep(ScriptedProvider):
    """Answers by how many steps it is shown: two with two calls each, then a text."""

    @asynccontextmanager
    async def stream(self, request: ModelRequest) -> AsyncIterator[AsyncIterator[Chunk]]:
        done = sum(bool(turn.tool_calls) for turn in request.turns)
        used = UsageChunk(TOKENS[done], 1)
        steps = [
            calling(call("a", at=1), call("b", at=2), words="one ", used=used),
            calling(call("c", at=3), call("d", at=4), words="two ", used=used),
            [*texts("three ", "four"), FinishChunk(FinishReason.STOP), used],
        ]
        self._scripts = [*([SILENCE] for _ in self.calls), steps[done]]
        async with super().stream(request) as chunks:
            yield chunks


async def whole_log(url: str, redis: Redis, tool: PlainTool) -> list[Frame]:
    """The log of a message that no worker was lost of."""
    async with worker_on(url, ByStep(), tools=[tool]):
        frames = await until_ended(redis, await post(redis, model=SCRIPT, tools=["look"]))
    assert len(frames) == EVENTS
    return frames


async def left_at(redis: Redis, frames: Sequence[Frame]) -> str:
    """A message whose worker was lost after these events; its job is due."""
    message_id = await accept(redis, model=SCRIPT, tools=["look"])
    claimed = await claim(redis, message_id, "lost")
    if frames:
        await log.append(redis, log.Batch(message_id, claimed.token, frames, LIFE))
    return message_id


def ran(frames: Sequence[Frame], name: str = "tool_start") -> set[str]:
    return {told["tool_call_id"] for told in data(frames, name)}


@pytest.mark.parametrize("policy", [FAIL, RETRY])
async def test_a_takeover_at_any_event_keeps_what_was_done_and_runs_nothing_twice_in_silence(
    clean_redis_url: str, redis: Redis, policy: OnUnknownOutcome
) -> None:
    whole = await whole_log(clean_redis_url, redis, PlainTool(on_unknown_outcome=policy))
    provider, look = ByStep(), PlainTool(on_unknown_outcome=policy)
    async with worker_on(clean_redis_url, provider, tools=[look]):
        for cut in range(len(whole) - 2):  # step, usage and done are one append
            before, provider.calls = whole[:cut], []
            look.ran.clear()
            message_id = await left_at(redis, before)
            await enqueue(redis, message_id)
            frames = await until_ended(redis, message_id)
            message = fold(frames)
            asked = {kept.tool_call_id: kept for kept in calls_of(message)}
            now, unknown = (
                {one.tool_call_id for one in look.ran},
                ran(before) - ran(before, "tool_result"),
            )
            assert len(now) == len(look.ran), cut
            assert now & ran(before, "tool_result") == set(), cut
            if policy is FAIL:
                assert now & unknown == set(), cut
                failed = {name for name, one in asked.items() if one.error is not None}
                assert failed == unknown, cut
                assert all("outcome unknown" in str(asked[name].error) for name in failed), cut
            else:
                assert now >= unknown, cut
            assert list(asked) == ["a", "b", "c", "d"], cut
            assert message.text == "one two three four", cut
            assert data(frames, "done") == [{"finish_reason": "stop", "text_chars": 18}], cut
            (usage,) = data(frames, "usage")
            if not usage["estimated"]:
                assert usage["input_tokens"] == sum(TOKENS), cut
            else:
                assert usage["input_tokens"] > sum(TOKENS), cut
            if before:
                (reset,) = data(frames, "reset")
                assert reset["reason"] == "takeover", cut
                kept_steps = "step" in names(before)
                over = names(before)[::-1].index("step") if kept_steps else len(before)
                since = before[len(before) - over :]
                if names(since).count("tool_call") == 2:
                    assert reset["after"] == str(before[-1].id), cut


async def test_usage_is_estimated_only_where_a_model_call_broke_off(
    clean_redis_url: str, redis: Redis
) -> None:
    whole = await whole_log(clean_redis_url, redis, PlainTool())
    called = [at for at, name in enumerate(names(whole)) if name == "tool_call"]
    over = {called[1], called[3]}
    look = PlainTool(on_unknown_outcome=RETRY)
    async with worker_on(clean_redis_url, ByStep(), tools=[look]):
        for cut in range(1, len(whole) - 2):
            message_id = await left_at(redis, whole[:cut])
            await enqueue(redis, message_id)
            frames = await until_ended(redis, message_id)
            since = names(whole[:cut])
            steps = max((at for at, name in enumerate(since) if name == "step"), default=0)
            begun = any(name in ("text", "tool_call") for name in since[steps:])
            broke = begun and not any(steps < at < cut for at in over)
            assert data(frames, "usage")[0]["estimated"] is broke, cut


async def test_a_cancel_at_any_event_is_ended_the_same_by_a_worker_and_without_one(
    clean_redis_url: str, redis: Redis
) -> None:
    whole = await whole_log(clean_redis_url, redis, PlainTool())
    async with worker_on(clean_redis_url, ByStep(), tools=[PlainTool()]) as worker:
        for cut in range(1, len(whole) - 2):
            ends = []
            for by_worker in (True, False):
                message_id = await left_at(redis, whole[:cut])
                await record.cancel(redis, message_id)
                if by_worker:
                    await enqueue(redis, message_id)
                else:
                    await ending.end_message(worker.kit.ender, message_id)
                frames = await until_ended(redis, message_id)
                assert open_calls(fold(frames)) == [], cut
                ends.append([(frame.name, frame.json) for frame in frames[cut + 1 :]])
                assert names(frames)[-2:] == ["usage", "done"]
            assert ends[0] == ends[1], cut


async def test_a_message_that_lost_too_many_workers_closes_its_calls(
    clean_redis_url: str, redis: Redis
) -> None:
    whole = await whole_log(clean_redis_url, redis, PlainTool())
    async with worker_on(clean_redis_url, ByStep(), tools=[PlainTool()], max_attempts=1):
        message_id = await left_at(redis, whole[:5])
        await enqueue(redis, message_id)
        frames = await until_ended(redis, message_id)
    assert names(frames)[6:] == ["tool_error", "tool_error", "usage", "failed"]
    assert data(frames, "failed")[0]["code"] == "attempts_exhausted"


@pytest.mark.parametrize("last", [False, True])
async def test_a_call_whose_arguments_broke_reaches_no_tool_of_a_later_attempt(
    clean_redis_url: str, redis: Redis, last: bool
) -> None:
    look = PlainTool()
    chunks = [ToolCallChunk(ToolCall("a", "look", {}), "{"), call("b")]
    provider = ScriptedProvider(calling(*(chunks[::-1] if last else chunks)), answer("x"))
    async with worker_on(clean_redis_url, provider, tools=[look]):
        frames = await until_ended(redis, await post(redis, model=SCRIPT, tools=["look"]))
        before = frames[: names(frames).index("tool_error")]
        assert names(before) == ["start", "tool_call", "tool_call"]
        look.ran.clear()
        message_id = await left_at(redis, before)
        await enqueue(redis, message_id)
        frames = await until_ended(redis, message_id)
    assert [one.tool_call_id for one in look.ran] == ["b"]
    assert "not a JSON object" in data(frames, "tool_error")[0]["error"]


async def test_a_takeover_goes_on_with_the_model_that_gave_the_last_step(
    clean_redis_url: str, redis: Redis
) -> None:
    gone = ProviderError("gone", code="provider_unavailable", retryable=True)
    models: dict[str, Any] = {"tools": ["look"], "fallbacks": ["script/y", "script/z"]}
    provider = ScriptedProvider([gone], calling(call("a")), answer("x"))
    async with worker_on(clean_redis_url, provider, tools=[PlainTool()]):
        whole = await until_ended(redis, await post(redis, model=SCRIPT, **models))
        for cut in (names(whole).index("tool_call") + 1, names(whole).index("step") + 1):
            message_id = await accept(redis, model=SCRIPT, **models)
            claimed = await claim(redis, message_id, "lost", seen=1)
            # The attempt of the fallback alone: what came before it was taken back.
            await log.append(redis, log.Batch(message_id, claimed.token, whole[1:cut], LIFE))
            provider.calls = provider.calls[:2]
            await enqueue(redis, message_id)
            frames = await until_ended(redis, message_id)
            assert [made.model for made in provider.calls[2:]] == ["y"], cut
            assert data(frames, "reset")[-1]["model"] == "script/y", cut


async def test_a_hand_over_in_a_tool_leaves_its_call_to_its_policy(
    clean_redis_url: str, redis: Redis
) -> None:
    for policy, runs in ((FAIL, 1), (RETRY, 2)):
        look = PlainTool(on_unknown_outcome=policy, gate=asyncio.Event())
        provider = ScriptedProvider(calling(call("a")), answer("x"))
        async with worker_on(clean_redis_url, provider, tools=[look]) as first:
            message_id = await post(redis, model=SCRIPT, tools=["look"])
            await until_true(lambda: bool(look.ran))  # noqa: B023
            await first.stop()
            first.dead = True
        look.gate.set()  # type: ignore[union-attr]
        async with worker_on(clean_redis_url, provider, tools=[look], name="worker-2"):
            frames = await until_ended(redis, message_id)
        assert len(look.ran) == runs
        assert len(set(look.keys)) == 1
        assert names(frames)[-1] == "done"
        (reset,) = data(frames, "reset")
        assert reset["after"] == "1-2"
        assert len(provider.calls) == 2


async def test_redis_losing_a_tools_start_does_not_run_it_twice_in_silence(
    clean_redis_url: str, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rejoin.worker.story.MOST_BYTES", 0)  # so that nothing is told again
    look = PlainTool(gate=asyncio.Event())
    provider = ScriptedProvider(calling(call("a"), call("b")), answer("x"))
    async with worker_on(clean_redis_url, provider, tools=[look]):
        message_id = await post(redis, model=SCRIPT, tools=["look"])
        await until_true(lambda: len(look.ran) == 2)
        await redis.xdel(keys.log(message_id), "1-3", "1-4")
        look.ran[0].report("n", 1)  # its append finds the log shorter
        frames = await until_ended(redis, message_id)
    assert len(look.ran) == 2
    assert [told["error"][:15] for told in data(frames, "tool_error")] == ["outcome unknown"] * 2
    assert names(frames)[-1] == "done"


async def test_redis_losing_a_result_has_it_written_again(
    clean_redis_url: str, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rejoin.worker.story.MOST_BYTES", 0)  # so that nothing is told again
    gate = asyncio.Event()

    async def second_waits(arguments: Mapping[str, object], call: Call) -> object:
        if call.tool_call_id == "b":
            await gate.wait()
        return call.tool_call_id

    look = PlainTool(act=second_waits)
    provider = ScriptedProvider(calling(call("a"), call("b")), answer("x"))
    async with worker_on(clean_redis_url, provider, tools=[look]):
        message_id = await post(redis, model=SCRIPT, tools=["look"])
        await until(lambda: _has(redis, message_id, "tool_result"))
        await redis.xdel(keys.log(message_id), "1-5")
        look.ran[1].report("n", 1)
        frames = await until_ended(redis, message_id)
    assert [told["result"] for told in data(frames, "tool_result")] == ["a"]
    assert len(data(frames, "tool_error")) == 1
    assert len(look.ran) == 2


async def _has(redis: Redis, message_id: str, name: str) -> bool:
    return name in names(await log.read_all(redis, message_id))


async def test_runs_lost_with_their_worker_are_counted_anew_after_each_step(
    clean_redis_url: str, redis: Redis
) -> None:
    goes = {1: asyncio.Event(), 2: asyncio.Event()}

    async def wait(arguments: Mapping[str, object], call: Call) -> object:
        await goes[call.step].wait()
        return None

    provider, look = ByStep(), PlainTool(on_unknown_outcome=RETRY, act=wait)
    settings: dict[str, Any] = {"tools": [look], "max_attempts": 2, "lease_seconds": 0.3}
    message_id = await post(redis, model=SCRIPT, tools=["look"])
    for step in (1, 2):
        async with worker_on(clean_redis_url, provider, name=f"lost-{step}", **settings) as worker:
            await until_true(lambda: [one.step for one in look.ran].count(step) == 2)  # noqa: B023
            await worker.die()
        goes[1].set()
    goes[2].set()
    async with worker_on(clean_redis_url, provider, **settings):
        frames = await until_ended(redis, message_id)
    assert names(frames)[-1] == "done"
    assert [told["reason"] for told in data(frames, "reset")] == ["takeover"] * 2
    assert [one.step for one in look.ran] == [1, 1, 1, 1, 2, 2, 2, 2]
    assert len(provider.calls) == 3

"""A worker is lost at any event of an agent's message: it goes on from the last checkpoint."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Final

import pytest
from redis.asyncio import Redis

from rejoin.shared import ending, keys, log, record
from rejoin.shared.ending import Ender
from rejoin.shared.fold import fold
from rejoin.shared.frames import Frame
from rejoin.shared.spent import attempts_of
from rejoin.shared.stored import load
from rejoin.shared.tool_calls import open_calls
from rejoin.worker.agents import Agent, Data, Run, Said, Step, agent
from rejoin.worker.providers.base import UsageChunk
from rejoin.worker.tools.base import OnUnknownOutcome
from tests.support.in_process import SCRIPT, until_ended, worker_on
from tests.support.logs import data, names
from tests.support.messages import LIFE, accept, claim, enqueue, post, until
from tests.support.scripted_provider import ScriptedProvider, answer
from tests.support.tools import PlainTool

Words = AsyncGenerator[Said, None]

PARTS: Final = 3
TEXT: Final = "begin 0 model 1 model 2 model end"
USED: Final = UsageChunk(input_tokens=10, output_tokens=2)


def worker_agent(runs: list[Run]) -> Agent:
    """An agent of three parts, each with a tool and a model, and a checkpoint behind it."""

    @agent(name="mine")
    async def mine(run: Run) -> Words:
        runs.append(run)
        done = run.checkpoint or 0
        assert isinstance(done, int)
        if not done:
            yield "begin "
        for part in range(done, PARTS):
            yield Data("part", part)
            result = await run.tool("look", {"part": part})
            assert result == {"part": part}
            yield f"{part} "
            async with run.model(SCRIPT, f"part {part}") as said:
                async for piece in said:
                    yield piece
            yield Step(part + 1)
        yield "end"

    return mine


def model() -> ScriptedProvider:
    return ScriptedProvider([*answer("mod", "el "), USED])


async def whole_log(url: str, redis: Redis, tool: PlainTool) -> list[Frame]:
    """The log of a message that no worker was lost of."""
    async with worker_on(url, model(), tools=[tool], agents=[worker_agent([])]):
        frames = await until_ended(redis, await post(redis, model="agent/mine"))
    assert fold(frames).text == TEXT
    assert data(frames, "usage")[0]["input_tokens"] == 30
    return frames


async def left_at(redis: Redis, frames: Sequence[Frame]) -> str:
    """A message whose worker was lost after these events; its job is due.

    Its id is that of the whole log: the ids of an agent's calls come from it.
    """
    message_id = str(data(frames, "start")[0]["message_id"]) if frames else None
    for key in await redis.keys("*"):
        await redis.delete(key)
    made = await accept(redis, model="agent/mine", message_id=message_id)
    claimed = await claim(redis, made, "lost")
    if frames:
        await log.append(redis, log.Batch(made, claimed.token, frames, LIFE))
    return made


@pytest.mark.parametrize("policy", [OnUnknownOutcome.FAIL, OnUnknownOutcome.RETRY])
async def test_it_is_called_again_with_the_last_checkpoint_wherever_its_worker_was_lost(
    clean_redis_url: str, redis: Redis, policy: OnUnknownOutcome
) -> None:
    whole = await whole_log(clean_redis_url, redis, PlainTool(on_unknown_outcome=policy))
    assert names(whole).count("step") == PARTS + 1
    for cut in range(1, len(whole) - 2):  # step, usage and done are one append
        before, runs = whole[:cut], list[Run]()
        look = PlainTool(on_unknown_outcome=policy)
        message_id = await left_at(redis, before)
        async with worker_on(clean_redis_url, model(), tools=[look], agents=[worker_agent(runs)]):
            await enqueue(redis, message_id)
            frames = await until_ended(redis, message_id)
        steps = names(before).count("step")
        (run,) = runs
        assert (run.checkpoint, run.step) == (steps or None, steps + 1), cut
        (reset,) = data(frames, "reset")
        kept = [str(frame.id) for frame in before if frame.name == "step"]
        assert reset["after"] == (kept[-1] if kept else None), cut
        assert reset["model"] == "agent/mine", cut
        started = {told["tool_call_id"] for told in data(before, "tool_start")}
        done = {told["tool_call_id"] for told in data(before, "tool_result")}
        now = {call.tool_call_id for call in look.ran}
        assert now & done == set(), cut  # what has its result is not run again
        if policy is OnUnknownOutcome.RETRY or started == done:
            assert fold(frames).text == TEXT, cut
            assert now >= started - done, cut
            assert names(frames)[-1] == "done", cut
        else:
            assert now == set(), cut
            assert "outcome unknown" in data(frames, "tool_error")[-1]["error"], cut
            assert names(frames)[-1] == "failed", cut
        assert open_calls(fold(frames)) == [], cut


async def test_the_same_call_has_the_same_key_in_each_run(
    clean_redis_url: str, redis: Redis
) -> None:
    first = PlainTool(on_unknown_outcome=OnUnknownOutcome.RETRY)
    whole = await whole_log(clean_redis_url, redis, first)
    cut = names(whole).index("tool_start") + 1
    message_id = await left_at(redis, whole[:cut])
    again = PlainTool(on_unknown_outcome=OnUnknownOutcome.RETRY)
    async with worker_on(clean_redis_url, model(), tools=[again], agents=[worker_agent([])]):
        await enqueue(redis, message_id)
        await until_ended(redis, message_id)
    assert again.keys == first.keys
    assert len(set(first.keys)) == PARTS


async def test_a_call_that_two_workers_were_lost_after_is_still_not_run_again(
    clean_redis_url: str, redis: Redis
) -> None:
    whole = await whole_log(clean_redis_url, redis, PlainTool())
    cut = names(whole).index("tool_result") + 1
    message_id = await left_at(redis, whole[:cut])
    # The second one only says that it is there: its `reset` takes the call back.
    async with worker_on(clean_redis_url, tools=[PlainTool()], agents=[silent()]) as second:
        await enqueue(redis, message_id)
        await until_there(redis, message_id, "reset")
        await second.die()
    look = PlainTool()
    await redis.zadd(keys.QUEUE, {message_id: 1})
    async with worker_on(
        clean_redis_url, model(), tools=[look], agents=[worker_agent([])], name="worker-3"
    ):
        frames = await until_ended(redis, message_id, within=20)
    assert fold(frames).text == TEXT
    assert [call.step for call in look.ran] == [2, 3]


def silent() -> Agent:
    @agent(name="mine")
    async def mine(run: Run) -> Words:
        await asyncio.Event().wait()
        yield "never"

    return mine


async def until_there(redis: Redis, message_id: str, name: str, count: int = 1) -> None:
    """Wait until the log has so many events of that name."""

    async def there() -> bool:
        return names(await log.read_all(redis, message_id)).count(name) >= count

    await until(there)


async def test_what_was_used_is_billed_once_wherever_its_worker_was_lost(
    clean_redis_url: str, redis: Redis
) -> None:
    whole = await whole_log(clean_redis_url, redis, PlainTool())
    for cut in range(1, len(whole) - 2):
        before = whole[:cut]
        message_id = await left_at(redis, before)
        look = PlainTool(on_unknown_outcome=OnUnknownOutcome.RETRY)
        provider = model()
        async with worker_on(clean_redis_url, provider, tools=[look], agents=[worker_agent([])]):
            await enqueue(redis, message_id)
            frames = await until_ended(redis, message_id)
        (usage,) = data(frames, "usage")
        steps = names(before).count("step")
        since = names(before)[::-1].index("step") if steps else cut
        broke_off = sum(map(_broke_off, privates(before, since)))
        if not broke_off:
            assert (usage["input_tokens"], usage["estimated"]) == (30, False), cut
        else:
            assert usage["estimated"], cut
            assert 30 < usage["input_tokens"] < 40, cut  # the prompt of one part
        stored = await load(redis, message_id)
        told = attempts_of(fold(stored.frames), stored.request, None)
        sums = [one["usage"]["input_tokens"] if one["usage"] else 0 for one in told]  # type: ignore[index]
        assert sum(sums) == usage["input_tokens"], cut


def _broke_off(private: bytes) -> bool:
    return b"shown_chars" in private


def privates(before: Sequence[Frame], since: int) -> list[bytes]:
    return [frame.private for frame in before[len(before) - since :]]


async def test_one_that_is_cancelled_while_nobody_runs_it_has_no_open_call(
    clean_redis_url: str, redis: Redis
) -> None:
    whole = await whole_log(clean_redis_url, redis, PlainTool())
    for cut in range(1, len(whole) - 2):
        message_id = await left_at(redis, whole[:cut])
        await record.hand_over(redis, message_id, "lost")
        await record.cancel(redis, message_id)
        await ending.end_message(Ender(redis, "api", LIFE), message_id, None)
        frames = await log.read_all(redis, message_id)
        assert open_calls(fold(frames)) == [], cut
        assert data(frames, "done")[0]["finish_reason"] == "cancelled", cut


async def test_a_cancel_heard_at_the_claim_closes_what_is_open_and_nothing_else(
    clean_redis_url: str, redis: Redis
) -> None:
    whole = await whole_log(clean_redis_url, redis, PlainTool())
    for cut in range(1, len(whole) - 2):
        before = whole[:cut]
        message_id = await left_at(redis, before)
        await record.cancel(redis, message_id)
        async with worker_on(clean_redis_url, agents=[worker_agent([])]):
            await enqueue(redis, message_id)
            frames = await until_ended(redis, message_id)
        called = {told["tool_call_id"] for told in data(before, "tool_call")}
        done = {told["tool_call_id"] for told in data(before, "tool_result")}
        closed = [told["tool_call_id"] for told in data(frames, "tool_error")]
        assert sorted(closed) == sorted(called - done), cut
        assert data(frames, "done")[0]["finish_reason"] == "cancelled", cut


async def test_lost_runs_count_anew_after_each_checkpoint(
    clean_redis_url: str, redis: Redis
) -> None:
    gate = asyncio.Event()
    runs: list[Run] = []

    @agent(name="mine")
    async def mine(run: Run) -> Words:
        runs.append(run)
        done = run.checkpoint or 0
        assert isinstance(done, int)
        if done < PARTS:
            yield f"{done} "
            yield Step(done + 1)
            await gate.wait()
        yield "end"

    message_id = await post(redis, model="agent/mine")
    for n in range(PARTS):
        async with worker_on(
            clean_redis_url, agents=[mine], name=f"lost-{n}", max_attempts=2
        ) as worker:
            await until_there(redis, message_id, "step", n + 1)
            await worker.die()
        await redis.zadd(keys.QUEUE, {message_id: 1})
    async with worker_on(clean_redis_url, agents=[mine], name="last", max_attempts=2):
        frames = await until_ended(redis, message_id, within=20)
    assert fold(frames).text == "0 1 2 end"
    assert [run.checkpoint for run in runs] == [None, 1, 2, 3]

"""What a message's calls cost, attempt by attempt, whoever made them."""

import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import asdict
from decimal import Decimal
from typing import Any, cast

import pytest
from redis.asyncio import Redis

from rejoin.shared import keys, late_usage, record
from rejoin.shared.errors import ProviderError
from rejoin.shared.events import FailureCode, Usage
from rejoin.shared.fold import Message, fold
from rejoin.shared.spent import attempts_of, total
from rejoin.worker.context import Context
from rejoin.worker.providers.base import ModelRequest, UsageChunk, WorkingChunk
from tests.support.in_process import SCRIPT, halfway, until_ended, until_events, worker_on
from tests.support.messages import claim, post, until, until_true
from tests.support.scripted_provider import SILENCE, Line, ScriptedProvider, answer, texts
from tests.support.tools import PlainTool, call, calling

BROKE = ProviderError("broke", code=FailureCode.PROVIDER_UNAVAILABLE, retryable=True)
BROKEN: list[Line] = [UsageChunk(10, 0, cost_usd=Decimal("0.1")), *texts("12345678"), BROKE]
WHOLE: list[Line] = [*answer("whole"), UsageChunk(20, 30, cost_usd=Decimal("0.02"))]
FREE: list[Line] = [*answer("whole"), UsageChunk(20, 30)]


async def ended(redis: Redis, url: str, *scripts: Sequence[Line], retries: int = 3) -> Message:
    """Post a message for a provider that plays these scripts; its log, once it has ended."""
    message_id = await post(redis, model=SCRIPT)
    async with worker_on(url, ScriptedProvider(*scripts), provider_retries=retries):
        return fold(await until_ended(redis, message_id, within=20))


def usages(message: Message) -> list[object]:
    return [attempt["usage"] for attempt in attempts_of(message, None, None)]


async def test_each_attempt_has_its_own_usage_and_the_message_their_sum(
    redis: Redis, clean_redis_url: str
) -> None:
    message = await ended(redis, clean_redis_url, BROKEN, WHOLE)
    broken = Usage(10, 2, 0, 0, "0.1", estimated=True)
    assert usages(message) == [asdict(broken), asdict(Usage(20, 30, 0, 0, "0.02"))]
    assert message.usage == asdict(Usage(30, 32, 0, 0, "0.12", estimated=True))


async def test_an_unknown_cost_among_known_ones_leaves_the_sum_unknown(
    redis: Redis, clean_redis_url: str
) -> None:
    message = await ended(redis, clean_redis_url, BROKEN, FREE)
    assert message.usage is not None
    assert message.usage["cost_usd"] is None
    assert message.usage["input_tokens"] == 30


async def test_a_failed_messages_last_attempt_has_its_usage_too(
    redis: Redis, clean_redis_url: str
) -> None:
    message = await ended(redis, clean_redis_url, BROKEN, retries=2)
    broken = asdict(Usage(10, 2, 0, 0, "0.1", estimated=True))
    assert usages(message) == [broken, broken]
    assert message.usage == asdict(Usage(20, 4, 0, 0, "0.2", estimated=True))


async def test_what_a_lost_worker_had_noted_is_not_guessed_by_the_next(
    redis: Redis, clean_redis_url: str
) -> None:
    message_id = await post(redis, model=SCRIPT)
    lost = ScriptedProvider(BROKEN, [*texts("1234"), SILENCE])
    async with worker_on(clean_redis_url, lost, provider_retries=3, lease_seconds=0.5) as worker:
        await until_events(redis, message_id, 4)  # start, text, reset, text
        await worker.die()
    heir = ScriptedProvider(WHOLE)
    async with worker_on(clean_redis_url, heir, name="worker-2", lease_seconds=0.5):
        message = fold(await until_ended(redis, message_id, within=20))
    noted, guessed, whole = usages(message)
    assert noted == asdict(Usage(10, 2, 0, 0, "0.1", estimated=True))
    assert guessed == asdict(Usage(4, 1, 0, 0, None, estimated=True))  # 13 characters were shown
    assert whole == asdict(Usage(20, 30, 0, 0, "0.02"))
    assert message.usage is not None
    assert (message.usage["output_tokens"], message.usage["cost_usd"]) == (33, None)


async def test_a_worker_lost_before_its_first_token_was_billed_for_its_input(
    redis: Redis, clean_redis_url: str
) -> None:
    message_id = await post(redis, model=SCRIPT)
    silent = ScriptedProvider([SILENCE])
    async with worker_on(clean_redis_url, silent, lease_seconds=0.5) as worker:
        await until_events(redis, message_id, 1)
        await until(lambda: noted(redis, message_id))
        await worker.die()
    assert len(silent.calls) == 1
    async with worker_on(clean_redis_url, ScriptedProvider(WHOLE), name="w2", lease_seconds=0.5):
        message = fold(await until_ended(redis, message_id, within=20))
    assert message.usage is not None
    assert (message.usage["input_tokens"], message.usage["output_tokens"]) == (24, 30)
    assert summed(message) == message.usage


@pytest.mark.parametrize("steps", [0, 1])
async def test_a_worker_lost_before_it_called_is_billed_for_nothing(
    redis: Redis, clean_redis_url: str, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    message_id = await post(redis, model=SCRIPT, tools=["look"])
    called = calling(call("c"), used=UsageChunk(5, 6, cost_usd=Decimal("0.5")))
    lost, request_of, asked = ScriptedProvider(called), Context.model_request, list[int]()

    async def slow(context: Context, *args: Any) -> ModelRequest:
        asked.append(1)
        if len(asked) > steps:
            await asyncio.Event().wait()
        return await request_of(context, *args)

    monkeypatch.setattr(Context, "model_request", slow)
    tools = [PlainTool()]
    async with worker_on(clean_redis_url, lost, lease_seconds=0.5, tools=tools) as worker:
        await until_true(lambda: len(asked) > steps)
        await until_events(redis, message_id, 1 + 4 * steps)
        await worker.die()
    monkeypatch.undo()
    heir = ScriptedProvider(WHOLE)
    async with worker_on(clean_redis_url, heir, name="w2", lease_seconds=0.5, tools=tools):
        message = fold(await until_ended(redis, message_id, within=20))
    assert (len(lost.calls), len(heir.calls)) == (steps, 1)
    assert message.usage is not None
    assert (message.usage["input_tokens"], message.usage["estimated"]) == (20 + 5 * steps, False)
    assert summed(message) == message.usage


async def test_a_call_of_a_log_that_was_told_again_is_noted_again(
    redis: Redis, clean_redis_url: str
) -> None:
    message_id = await post(redis, model=SCRIPT)
    gate = asyncio.Event()
    lost = ScriptedProvider([gate, *texts("1234"), SILENCE])
    async with worker_on(clean_redis_url, lost) as worker:
        await until(lambda: noted(redis, message_id))
        await redis.delete(keys.log(message_id))
        gate.set()
        await until_events(redis, message_id, 3)  # start, reset, text

        async def noted_again() -> bool:
            found = await record.load(redis, message_id)
            return found is not None and found.called == (found.attempt, 1) != (1, 1)

        await until(noted_again)
        await worker.die()


async def noted(redis: Redis, message_id: str) -> bool:
    found = await record.load(redis, message_id)
    return found is not None and found.called == (found.attempt, 1)


async def test_a_worker_that_hands_over_tells_what_its_call_reported(
    redis: Redis, clean_redis_url: str
) -> None:
    message_id = await post(redis, model=SCRIPT)
    reported = ScriptedProvider([UsageChunk(10, 1, cost_usd=Decimal("0.1")), SILENCE])
    async with worker_on(clean_redis_url, reported) as worker:
        await until_true(lambda: reported.given == 1)
        await worker.stop()
    async with worker_on(clean_redis_url, ScriptedProvider(WHOLE), name="w2"):
        message = fold(await until_ended(redis, message_id, within=20))
    told, whole = usages(message)
    assert told == asdict(Usage(10, 1, 0, 0, "0.1"))
    assert whole == asdict(Usage(20, 30, 0, 0, "0.02"))
    assert summed(message) == message.usage == asdict(Usage(30, 31, 0, 0, "0.12"))


async def test_a_worker_that_lost_its_message_tells_what_it_used_once_it_can(
    redis: Redis, clean_redis_url: str
) -> None:
    async with halfway(clean_redis_url, redis) as (message_id, provider, gate):
        await cast(Awaitable[int], redis.hset(keys.OWNERS, message_id, "another"))
        await claim(redis, message_id, "another")
        gate.set()
        await until_true(lambda: provider.open == 0)

        async def told() -> bool:
            return bool(await late_usage.told(redis, message_id))

        await until(told)
        (used,) = (await late_usage.told(redis, message_id)).values()
    assert (used.input_tokens, used.output_tokens) == (4, 2)  # the log has the first word alone


async def test_what_is_told_late_is_in_the_bill_of_whoever_ends_the_message(
    redis: Redis, clean_redis_url: str
) -> None:
    message_id, gate = await post(redis, model=SCRIPT), asyncio.Event()
    lost = ScriptedProvider([*texts("1234"), SILENCE])
    async with worker_on(clean_redis_url, lost, lease_seconds=0.5) as worker:
        await until_events(redis, message_id, 2)
        await worker.die()
    heir = ScriptedProvider([*texts("whole"), gate, *WHOLE])
    async with worker_on(clean_redis_url, heir, name="w2", lease_seconds=0.5):
        await until_true(lambda: heir.given == 1)
        await late_usage.tell(redis, message_id, 1, Usage(100, 200, 0, 0, "1"))
        gate.set()
        message = fold(await until_ended(redis, message_id, within=20))
    assert usages(message)[0] == asdict(Usage(100, 200, 0, 0, "1"))
    assert summed(message) == message.usage == asdict(Usage(120, 230, 0, 0, "1.02"))


async def test_tries_that_gave_nothing_are_told_with_the_retry(
    redis: Redis, clean_redis_url: str
) -> None:
    reported: list[Line] = [UsageChunk(10, 0, cost_usd=Decimal("0.1")), BROKE]
    message = await ended(redis, clean_redis_url, reported, WHOLE)
    (retry,) = message.named("retry")
    assert retry.private["usage"] == asdict(Usage(10, 0, 0, 0, "0.1"))
    assert summed(message) == message.usage == asdict(Usage(30, 30, 0, 0, "0.12"))


async def test_arguments_that_broke_off_are_billed(redis: Redis, clean_redis_url: str) -> None:
    arguments: list[Line] = [WorkingChunk(40), WorkingChunk(4), BROKE]
    message = await ended(redis, clean_redis_url, arguments, WHOLE)
    assert message.usage is not None
    assert (message.usage["output_tokens"], message.usage["estimated"]) == (41, True)


def summed(message: Message) -> dict[str, object]:
    """What the attempts used together."""
    spent: Usage | None = None
    for attempt in attempts_of(message, None, None):
        if isinstance(used := attempt["usage"], dict):
            spent = total(spent, Usage(**used))
    assert spent is not None
    return asdict(spent)

"""What a message's calls cost, attempt by attempt, whoever made them."""

from collections.abc import Sequence
from dataclasses import asdict
from decimal import Decimal

from redis.asyncio import Redis

from rejoin.shared.errors import ProviderError
from rejoin.shared.events import FailureCode, Usage
from rejoin.shared.fold import Message, fold
from rejoin.shared.spent import attempts_of
from rejoin.worker.providers.base import UsageChunk
from tests.support.in_process import SCRIPT, until_ended, until_events, worker_on
from tests.support.messages import post
from tests.support.scripted_provider import SILENCE, Line, ScriptedProvider, answer, texts

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

"""Redis is away in mid-answer: what the provider gives is kept up to a bound, and written later."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import pytest
from redis.asyncio import Redis

from rejoin.shared import record
from rejoin.shared.fold import Message, fold
from rejoin.worker.writer import MOST_WAITING_BYTES
from tests.support.in_process import SCRIPT, until_ended, until_events, worker_on
from tests.support.messages import place, post, until_true
from tests.support.redis_server import RedisServer
from tests.support.scripted_provider import SILENCE, Line, ScriptedProvider, answer, texts

LEASE: Final = 0.6
PIECE: Final = 16_384
# What waits in one attempt, and before it the batch under way, taken while it was still small.
MOST_KEPT: Final = 2 * MOST_WAITING_BYTES


async def killed(redis: RedisServer, during: Callable[[], bool]) -> None:
    await asyncio.to_thread(redis.kill)
    try:
        await until_true(during, within=15)
    finally:
        await asyncio.to_thread(redis.start)


async def stalled(redis: RedisServer, during: Callable[[], bool]) -> None:
    with redis.paused():
        await until_true(during, within=15)


Outage = Callable[[RedisServer, Callable[[], bool]], Awaitable[None]]
both_outages = pytest.mark.parametrize("outage", [killed, stalled])


@asynccontextmanager
async def streaming(
    redis: RedisServer, client: Redis, script: list[Line], **settings: Any
) -> AsyncIterator[tuple[ScriptedProvider, str]]:
    """A worker in the midst of an answer."""
    provider = ScriptedProvider(script)
    async with worker_on(redis.url, provider, lease_seconds=LEASE, **settings):
        message_id = await post(client, model=SCRIPT)
        await until_events(client, message_id, 2)
        yield provider, message_id


def assert_in_one_piece(message: Message, text: str) -> None:
    """Check an answer that came through an outage without being begun again."""
    assert message.end is not None
    assert message.end.fields == {"finish_reason": "stop", "text_chars": len(text)}
    assert message.text == text
    assert len(message.attempts) == 1


def paced(words: list[str], every: float) -> list[Line]:
    lines: list[Line] = []
    for line in answer(*words):
        lines += [every, line]
    return [*lines]


@both_outages
async def test_what_is_streamed_during_an_outage_is_appended_afterwards_in_order(
    own_redis: RedisServer, own_client: Redis, outage: Outage
) -> None:
    words = [f"word{n} " for n in range(150)]
    script = paced(words, 0.01)
    async with streaming(own_redis, own_client, script) as (provider, message_id):
        given = provider.given
        await outage(own_redis, lambda: provider.given > given + 50)
        frames = await until_ended(own_client, message_id, within=20)
    assert_in_one_piece(fold(frames), "".join(words))
    assert len(provider.calls) == 1


@both_outages
async def test_an_answer_that_ends_during_an_outage_ends_after_it(
    own_redis: RedisServer, own_client: Redis, outage: Outage
) -> None:
    words = [f"word{n} " for n in range(40)]
    script = paced(words, 0.01)
    async with streaming(own_redis, own_client, script) as (provider, message_id):
        await outage(own_redis, lambda: provider.open == 0)
        frames = await until_ended(own_client, message_id, within=20)
    assert_in_one_piece(fold(frames), "".join(words))


@both_outages
async def test_beyond_the_bound_the_provider_is_not_read_on_and_is_not_called_silent(
    own_redis: RedisServer, own_client: Redis, outage: Outage
) -> None:
    """The outage lasts many times the silence that a provider is allowed."""
    pieces = [f"{n:06}".ljust(PIECE, "x") for n in range(5 * MOST_WAITING_BYTES // PIECE)]
    script: list[Line] = [*texts("first "), 0.3, *paced(pieces, 0.001)]
    async with streaming(own_redis, own_client, script, timeout_idle=0.5) as (provider, message_id):
        loop = asyncio.get_running_loop()
        seen, since = 0, loop.time()

        def held_back() -> bool:
            nonlocal seen, since
            if provider.given != seen:
                seen, since = provider.given, loop.time()
            return loop.time() - since > 1.5 and seen > 10

        await outage(own_redis, held_back)
        assert MOST_WAITING_BYTES < seen * PIECE < MOST_KEPT
        frames = await until_ended(own_client, message_id, within=30)
    assert_in_one_piece(fold(frames), "first " + "".join(pieces))
    assert len(provider.calls) == 1


async def test_a_cancel_is_heard_by_a_run_that_is_held_back(
    own_redis: RedisServer, own_client: Redis
) -> None:
    pieces = ["y" * PIECE] * (5 * MOST_WAITING_BYTES // PIECE)
    script: list[Line] = [*texts("first "), 0.3, *texts(*pieces), SILENCE]
    async with streaming(own_redis, own_client, script) as (provider, message_id):
        await stalled(own_redis, lambda: provider.given * PIECE > MOST_WAITING_BYTES)
        await record.cancel(own_client, message_id)
        frames = await until_ended(own_client, message_id, within=20)
        assert provider.open == 0
    end = fold(frames).end
    assert end is not None
    assert end.fields["finish_reason"] == "cancelled"
    assert await place(own_client, message_id) == (None, None, False)

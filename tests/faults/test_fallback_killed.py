"""Workers and Redis go away while another model goes on: it goes on, and the text is its own."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from rejoin.shared import cooling
from rejoin.shared.connections import open_redis
from tests.support.caller import assert_whole_log, data_of, names, until, visible_text
from tests.support.provided import Provided, provided_by, simulated
from tests.support.provider_script import simulated_text
from tests.support.redis_server import RedisServer
from tests.support.sse_reader import SseFrame, open_tail

WORDS = 30
DOWN = "fault=503&retry_after=0"
LATE = f"words={WORDS}&delay=2"
TRIES = 2


@pytest.fixture
async def own(own_redis: RedisServer) -> AsyncIterator[Provided]:
    """A stack for a test to break."""
    with simulated(own_redis, REJOIN_PROVIDER_RETRIES=str(TRIES)) as made:
        async with provided_by(made) as own:
            yield own


def assert_the_seconds(frames: list[SseFrame]) -> None:
    assert_whole_log(frames)
    assert visible_text(frames) == simulated_text(WORDS)
    assert [name for name in names(frames) if name in ("done", "failed")] == ["done"]


async def asked(own: Provided, message_id: str) -> list[int]:
    """How often each model was asked, in the order in which they first were."""
    told: dict[Any, int] = {}
    for request in await own.requests(message_id):
        model = request["body"]["model"]
        told[model] = told.get(model, 0) + 1
    return list(told.values())


async def test_a_worker_killed_while_the_second_model_is_asked_is_followed_by_one_that_asks_that(
    own: Provided,
) -> None:
    message_id = await own.ask(DOWN, LATE)
    async with open_tail(own.api.events(message_id)) as tail:
        await tail.until(lambda: names(tail.frames)[-1:] == ["reset"])
        own.stack.worker.kill()
        own.stack.worker.launch()
        frames = await tail.read_until_end(within=20)
    assert_the_seconds(frames)
    fallback, takeover = data_of(frames, "reset")
    assert (fallback["reason"], takeover["reason"]) == ("provider_unavailable", "takeover")
    assert fallback["model"] == takeover["model"]
    assert await asked(own, message_id) == [TRIES, 2]


async def test_a_redis_that_hangs_while_it_is_asked_which_model_is_left_alone_loses_nothing(
    own: Provided,
) -> None:
    message_id = await own.ask(DOWN, f"words={WORDS}")
    async with open_tail(own.api.events(message_id)) as tail:
        await tail.until(lambda: "retry" in names(tail.frames))
        own.stack.redis.pause()  # in the pause before the last try
        try:
            await until(lambda: _both_asked(own, message_id), within=10)
            await asyncio.to_thread(_wait_for_log, own)
        finally:
            own.stack.redis.resume()
    frames = await own.api.log(message_id, within=20)
    assert_the_seconds(frames)
    assert data_of(frames, "reset")[-1]["model"] == data_of(frames, "reset")[0]["model"]


async def _both_asked(own: Provided, message_id: str) -> bool:
    return len(await own.requests(message_id)) >= TRIES


def _wait_for_log(own: Provided) -> None:
    own.stack.worker.until(lambda: "hears that" in own.stack.worker.said(), within=20)


async def test_workers_share_what_failed_and_one_message_of_all_tries_it(own: Provided) -> None:
    own.stack.new_worker().start()
    down = f"openai/sim?{DOWN}&shared"
    message: dict[str, Any] = {"model": down, "fallbacks": [f"openai/sim?words={WORDS}&rate=0"]}
    first = await own.api.log(await own.api.accepted("a", **message), within=20)
    assert names(first)[:3] == ["start", "retry", "reset"]
    sent = [await own.api.accepted("a", **message) for _ in range(20)]
    for message_id in sent:
        frames = await own.api.log(message_id, within=20)
        assert_the_seconds(frames)
        assert names(frames)[:2] == ["start", "reset"]
        assert len(await own.requests(message_id)) == 1
    async with open_redis(own.stack.redis.url) as redis:
        assert set(await cooling.left_alone(redis)) == {down}

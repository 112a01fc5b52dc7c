"""Providers' own lists: asked by one worker at a time, kept in Redis, read by the API."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from decimal import Decimal
from typing import cast

import httpx
import pytest
from redis.asyncio import Redis

from rejoin.api.app import Application, create_app
from rejoin.shared import catalogue, keys, own_lists
from rejoin.shared.catalogue import ProviderState
from rejoin.shared.connections import open_redis
from rejoin.shared.errors import ProviderError
from rejoin.shared.events import FailureCode
from rejoin.shared.own_lists import ListedModel
from rejoin.shared.settings import Settings
from rejoin.worker.models import LIFE_SECONDS, Lists
from rejoin.worker.providers.base import Provider
from rejoin.worker.providers.registry import Providers
from tests.support.in_process import kit_for
from tests.support.messages import until, until_true
from tests.support.redis_server import RedisServer
from tests.support.scripted_provider import ScriptedProvider

MODELS = [
    ListedModel("a"),
    ListedModel("b/c:d", 10, 5, frozenset({"tools", "vision"}), (Decimal("0.10"), Decimal("2E-7"))),
]
AWAY = ProviderError("away", code=FailureCode.PROVIDER_UNAVAILABLE, retryable=True)


class Listing(ScriptedProvider):
    """A provider that answers with a list, after what `before` waits for."""

    def __init__(self, before: Callable[[], Awaitable[object]] | None = None) -> None:
        super().__init__([])
        self.asked = 0
        self._before = before

    async def models(self) -> list[ListedModel]:
        self.asked += 1
        if self._before is not None:
            await self._before()
        return MODELS


async def fail() -> None:
    raise AWAY


async def break_down() -> None:
    raise RuntimeError("a defect")


async def hang() -> None:
    await asyncio.Event().wait()


def lists(
    redis: Redis,
    monkeypatch: pytest.MonkeyPatch,
    *,
    name: str = "worker-1",
    every_seconds: float = 60,
    answer_seconds: float = 0.2,
    **providers: Listing,
) -> Lists:
    """Those who ask, in a worker of its own, for providers that are all configured."""
    states = [ProviderState(provider, True, "") for provider in providers]
    monkeypatch.setattr(catalogue, "providers", lambda: states)
    kit = kit_for(redis, name=name)
    opened: dict[str, Callable[[], Provider]] = {
        provider: lambda listing=listing: cast(Provider, listing)  # type: ignore[misc]
        for provider, listing in providers.items()
    }
    kit = replace(kit, providers=Providers(opened))
    return Lists(kit, every_seconds=every_seconds, answer_seconds=answer_seconds)


async def test_a_list_comes_back_as_it_was_kept(redis: Redis) -> None:
    await own_lists.keep(redis, "one", MODELS, life_seconds=60)
    assert await own_lists.kept(redis, ["one", "two"]) == {"one": MODELS}


@pytest.mark.parametrize("text", [b"", b"{", b"[{}]", b"[1]", b'{"a":1}', b"\xff"])
async def test_what_is_no_list_is_left_out(redis: Redis, text: bytes) -> None:
    await own_lists.keep(redis, "two", MODELS, life_seconds=60)
    await redis.set(keys.own_list("one"), text)
    assert list(await own_lists.kept(redis, ["one", "two"])) == ["two"]


async def test_a_provider_that_is_away_broken_or_slow_loses_no_list_and_delays_no_other(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    await own_lists.keep(redis, "away", MODELS[:1], life_seconds=60)
    there, away, broken, slow = Listing(), Listing(fail), Listing(break_down), Listing(hang)
    asking = lists(redis, monkeypatch, away=away, broken=broken, slow=slow, there=there)
    async with asyncio.timeout(10):
        await asking.ask()
    assert [provider.asked for provider in (there, away, broken, slow)] == [1, 1, 1, 1]
    kept = await own_lists.kept(redis, ["there", "away", "broken", "slow"])
    assert kept == {"there": MODELS, "away": MODELS[:1]}
    assert 0 < await redis.ttl(keys.own_list("there")) <= LIFE_SECONDS


async def test_a_list_is_there_while_another_provider_still_hangs(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    asking = lists(redis, monkeypatch, slow=Listing(hang), there=Listing(), answer_seconds=60)
    running = asyncio.create_task(asking.ask())

    async def is_there() -> bool:
        return "there" in await own_lists.kept(redis, ["there"])

    try:
        await until(is_there)
        assert not running.done()
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_one_worker_asks_at_a_time_and_again_and_again(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = Listing(), Listing()
    asking = [
        lists(redis, monkeypatch, name=name, every_seconds=0.01, there=provider)
        for name, provider in (("w1", first), ("w2", second))
    ]
    running = asyncio.create_task(asking[0].run())
    await until_true(lambda: first.asked >= 1)
    other = asyncio.create_task(asking[1].run())
    await until_true(lambda: first.asked >= 5)
    for task in (running, other):
        task.cancel()
    await asyncio.gather(running, other, return_exceptions=True)
    assert second.asked == 0


async def models_of(url: str) -> dict[str, dict[str, object]]:
    """What an API on that Redis answers, within five seconds."""
    context = create_app(Settings(redis_url=url)).context
    try:
        async with (
            asyncio.timeout(5),
            httpx.AsyncClient(
                transport=httpx.ASGITransport(Application(context)),
                base_url="http://api",
                trust_env=False,
            ) as http,
        ):
            answer = await http.get("/api/models")
    finally:
        await context.redis.aclose()
    assert answer.status_code == 200
    return {model["id"]: model for model in answer.json()["models"]}


async def test_the_api_answers_with_what_a_worker_was_told(clean_redis_url: str) -> None:
    before = await models_of(clean_redis_url)
    redis = open_redis(clean_redis_url)
    await own_lists.keep(redis, "openai", MODELS, life_seconds=60)
    await redis.aclose()
    after = await models_of(clean_redis_url)
    assert set(after) - set(before) == {"openai/a", "openai/b/c:d"}
    assert after["openai/a"]["context_window"] is None
    assert after["openai/b/c:d"]["price"] == {"input": "0.1", "output": "0.0000002"}
    assert after["openai/gpt-5.5"]["available"] is True


async def test_without_redis_the_api_answers_with_our_own_file(own_redis: RedisServer) -> None:
    own_redis.kill()
    assert "openai/gpt-5.5" in await models_of(own_redis.url)


async def test_a_redis_that_says_nothing_does_not_keep_the_answer(own_redis: RedisServer) -> None:
    with own_redis.paused():
        assert "openai/gpt-5.5" in await models_of(own_redis.url)

"""The models that a provider lists itself, from its server to GET /api/models."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.support.caller import Caller, caller
from tests.support.messages import until
from tests.support.processes import Stack, rejoin_stack
from tests.support.provider_server import provider_process
from tests.support.redis_server import RedisServer

LISTED = "openai/sim"  # what the simulator lists


async def models(api: Caller) -> dict[str, dict[str, object]]:
    answer = await api.http.get("/api/models")
    assert answer.status_code == 200
    return {model["id"]: model for model in answer.json()["models"]}


@pytest.fixture
def provider() -> Iterator[ExitStack]:
    """Whatever ends the provider's process."""
    with ExitStack() as stack:
        yield stack


def on(base_url: str) -> dict[str, str]:
    return {"OPENAI_BASE_URL": base_url, "OPENAI_API_KEY": "sk-test-0123456789"}


async def test_a_providers_list_outlives_the_provider_and_redis_away_leaves_our_own(
    own_redis: RedisServer, provider: ExitStack
) -> None:
    base_url = provider.enter_context(provider_process())
    with rejoin_stack(own_redis, settings=on(base_url)) as stack:
        async with caller(stack.url) as api:
            await _until_listed(api)
            provider.close()
            found = await models(api)
            assert found[LISTED]["available"] is True
            assert found[LISTED]["price"] is None
            assert found[LISTED]["context_window"] is None
            own_redis.kill()
            alone = await models(api)
            assert LISTED not in alone
            assert alone["openai/gpt-5.5"]["available"] is True
            own_redis.start()
            await _until_listed(api)
        stack.assert_no_traceback()


async def test_a_provider_that_is_away_delays_no_answer(own_redis: RedisServer) -> None:
    with rejoin_stack(own_redis, settings=on("http://127.0.0.1:1/v1")) as stack:
        async with caller(stack.url) as api:
            assert "openai/gpt-5.5" in await models(api)
            await _until_said(stack, "openai did not list its models")
        stack.assert_no_traceback()


async def _until_listed(api: Caller) -> None:
    async def listed() -> bool:
        return LISTED in await models(api)

    await until(listed, within=20)


async def _until_said(stack: Stack, words: str) -> None:
    async def said() -> bool:
        return any(words in worker.said() for worker in stack.workers)

    await until(said, within=30)

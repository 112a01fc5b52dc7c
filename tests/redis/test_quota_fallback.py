"""A fallback under the same provider key: it does not wait for what another model was refused."""

from collections import Counter
from typing import Final

import pytest
from redis.asyncio import Redis

from rejoin.shared.fold import fold
from rejoin.shared.record import Status, load
from tests.support.in_process import until_ended
from tests.support.limited_provider import ANSWERED, LimitedProvider
from tests.support.limited_workers import workers_of
from tests.support.messages import post, until

TEXT: Final = "".join(ANSWERED)
FIRST: Final = "openai/first"
SECOND: Final = "openai/second"
THIRD: Final = "openai/third"
LONG: Final = 60.0


async def all_wait(redis: Redis, ids: list[str]) -> bool:
    found = [await load(redis, message_id) for message_id in ids]
    return all(one is not None and one.status is Status.WAITING for one in found)


async def ended_by(redis: Redis, message_id: str) -> str:
    """The model that ended it well."""
    message = fold(await until_ended(redis, message_id))
    assert message.text == TEXT
    return str(message.named("reset")[-1].fields["model"])


async def test_another_model_of_a_parked_key_goes_on_until_it_is_refused_too(
    redis: Redis, clean_redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        LimitedProvider(
            requests=2, window_seconds=LONG, sliding=True, tells=False, by_model=True
        ) as server,
        workers_of(clean_redis_url, server, monkeypatch, 2),
    ):
        for _ in range(2):
            await until_ended(redis, await post(redis, model=FIRST))
        # Refused itself; then one that finds the key parked.
        for _ in range(2):
            message_id = await post(redis, model=FIRST, fallbacks=[SECOND])
            assert await ended_by(redis, message_id) == SECOND
        assert Counter(one.model for one in server.refused) == {"first": 1}
        others = [await post(redis, model=FIRST, fallbacks=[SECOND]) for _ in range(10)]
        # One that merely comes along waits, though its model was never asked.
        others.append(await post(redis, model=THIRD))
        await until(lambda: all_wait(redis, others))
    assert Counter(one.model for one in server.refused) == {"first": 1, "second": 1}
    assert "third" not in {one.model for one in server.met}


async def test_where_the_whole_key_is_limited_each_other_model_is_refused_once(
    redis: Redis, clean_redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        LimitedProvider(requests=3, window_seconds=LONG, sliding=True, tells=False) as server,
        workers_of(clean_redis_url, server, monkeypatch, 2),
    ):
        # Both workers know that no answer's headers bound any of the models.
        for model in (FIRST, SECOND, THIRD):
            await until_ended(redis, await post(redis, model=model))
        ids = [await post(redis, model=FIRST, fallbacks=[SECOND, THIRD]) for _ in range(40)]
        await until(lambda: all_wait(redis, ids))
    refused = Counter((one.worker, one.model) for one in server.refused)
    assert {model for _, model in refused} == {"first", "second", "third"}
    assert all(count == 1 for (_, model), count in refused.items() if model != "first")

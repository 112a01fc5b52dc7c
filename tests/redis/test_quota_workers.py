"""Four workers and 300 messages at a provider that takes 60 requests a window."""

import pytest
from redis.asyncio import Redis

from rejoin.shared import log
from rejoin.shared.fold import fold
from rejoin.shared.settings_file import Quota
from tests.support.limited_provider import ANSWERED, LimitedProvider
from tests.support.limited_workers import all_ended, workers_of
from tests.support.messages import post, until

MESSAGES = 300
LIMIT = 60
WINDOW = 1.5


async def answered(redis: Redis, ids: list[str]) -> None:
    """Each message ended well, and says its text once."""
    for message_id in ids:
        message = fold(await log.read_all(redis, message_id))
        assert message.end is not None
        assert message.end.name == "done", message.end.fields
        assert message.text == "".join(ANSWERED)


@pytest.mark.parametrize("quota", [Quota(requests_per_minute=LIMIT), None], ids=["file", "headers"])
async def test_all_of_many_messages_end_well_within_the_limit(
    quota: Quota | None,
    redis: Redis,
    clean_redis_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with (
        LimitedProvider(requests=LIMIT, window_seconds=WINDOW) as server,
        workers_of(clean_redis_url, server, monkeypatch, 4, quota=quota, max_jobs=75),
    ):
        ids = [await post(redis, model="openai/m") for _ in range(MESSAGES)]
        await until(lambda: all_ended(redis), within=40, every=0.1)
    await answered(redis, ids)
    assert len(server.taken) == MESSAGES
    assert len({one.worker for one in server.taken}) == 4
    most = server.most_refusals_in_a_window()
    if quota is not None:
        assert most == {}
    else:
        assert all(refusals == 1 for refusals in most.values()), most

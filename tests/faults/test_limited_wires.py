"""A provider that limits its key's rate, told in the headers of each wire format alone."""

import pytest
from redis.asyncio import Redis

from rejoin.shared import log
from rejoin.shared.fold import fold
from tests.support.limited_provider import ANSWERED, LimitedProvider
from tests.support.limited_workers import all_ended, workers_of
from tests.support.messages import post, until

LIMIT = 20
MESSAGES = 50


@pytest.mark.parametrize(
    ("model", "sliding"),
    [("anthropic/claude-haiku-4-5", True), ("openrouter/some/model", False)],
)
async def test_told_by_headers_alone_no_worker_is_refused_twice_in_a_window(
    redis: Redis, clean_redis_url: str, monkeypatch: pytest.MonkeyPatch, model: str, sliding: bool
) -> None:
    wire = model.partition("/")[0]
    async with (
        LimitedProvider(wire, requests=LIMIT, window_seconds=1, sliding=sliding) as server,
        workers_of(clean_redis_url, server, monkeypatch, 4, max_jobs=20),
    ):
        ids = [await post(redis, model=model) for _ in range(MESSAGES)]
        await until(lambda: all_ended(redis), within=30, every=0.05)
    for message_id in ids:
        message = fold(await log.read_all(redis, message_id))
        assert message.end is not None
        assert message.end.name == "done", message.end.fields
        assert message.text == "".join(ANSWERED)
    assert len(server.taken) == MESSAGES
    most = server.most_refusals_in_a_window()
    assert all(refusals == 1 for refusals in most.values()), most

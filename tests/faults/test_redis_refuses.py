"""Redis is full or read-only: as if it was away, until it is mended."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.support.caller import (
    Stopwatch,
    assert_problem,
    assert_try_later,
    assert_whole_log,
    caller,
    visible_text,
)
from tests.support.processes import Stack
from tests.support.redis_server import RedisServer, free_port
from tests.support.sse_reader import open_tail

TEXT = "an answer that waits until Redis takes it again " * 4


@contextmanager
def refusing(redis: RedisServer, how: str) -> Iterator[None]:
    """Refuse every write: `full` has no memory left, `read-only` became a replica."""
    with redis.client() as client:
        if how == "full":
            client.config_set("maxmemory", "1")
        else:
            client.replicaof("127.0.0.1", free_port())
        try:
            yield
        finally:
            if how == "full":
                client.config_set("maxmemory", "0")
            else:
                client.replicaof("NO", "ONE")


@pytest.mark.parametrize("how", ["full", "read-only"])
async def test_a_post_is_503_and_a_running_message_goes_on_later(stack: Stack, how: str) -> None:
    async with caller(stack.url) as api:
        message_id = await api.accepted(TEXT, rate=20)
        async with open_tail(api.events(message_id)) as tail:
            await tail.read_n(8)
            with refusing(stack.redis, how):
                watch = Stopwatch()
                assert_try_later(await api.post("a"))
                assert_try_later(await api.post("a", headers={"Idempotency-Key": "a"}))
                assert watch.seconds < 8
                await tail.read_comments(2)
            frames = await tail.read_until_end(within=20)
        assert_whole_log(frames)
        assert visible_text(frames) == TEXT
        assert [f.raw for f in await api.log(message_id)] == [f.raw for f in frames]
        again = await api.post("a", headers={"Idempotency-Key": "a"})
        assert again.status_code == 202
        assert visible_text(await api.log(again.json()["message_id"])) == "a"


@pytest.mark.parametrize("how", ["full", "read-only"])
async def test_what_only_reads_is_answered_and_a_cancel_is_503(stack: Stack, how: str) -> None:
    async with caller(stack.url) as api:
        ended = await api.accepted("a")
        whole = await api.log(ended)
        running = await api.accepted("word " * 100, rate=5)
        async with open_tail(api.events(running)) as tail:
            await tail.read_n(2)
            with refusing(stack.redis, how):
                assert (await api.snapshot(ended))["text"] == "a"
                assert [f.raw for f in await api.log(ended)] == [f.raw for f in whole]
                assert_problem(await api.cancel(running), 503)
            assert (await api.cancel(running)).status_code == 202
            assert (await tail.read_until_end())[-1].data["finish_reason"] == "cancelled"

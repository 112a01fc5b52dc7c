"""Redis answers, but refuses: as if it was away, until it is mended."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol, cast

import pytest
from redis import Redis, ResponseError

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


def drop_connections(client: Redis) -> None:
    """Close everybody else's: who comes back meets the refusal."""
    for kind in ("normal", "pubsub"):
        client.client_kill_filter(_type=kind, skipme=True)


@contextmanager
def full(client: Redis) -> Iterator[None]:
    """No memory is left: -OOM."""
    client.config_set("maxmemory", "1")
    yield
    client.config_set("maxmemory", "0")


@contextmanager
def read_only(client: Redis) -> Iterator[None]:
    """It became a replica, as in a failover: -READONLY, and -UNBLOCKED for who waits."""
    client.replicaof("127.0.0.1", free_port())
    yield
    client.replicaof("NO", "ONE")


@contextmanager
def alone(client: Redis) -> Iterator[None]:
    """It may not write without its replicas: -NOREPLICAS."""
    client.config_set("min-replicas-to-write", "1")
    yield
    client.config_set("min-replicas-to-write", "0")


@contextmanager
def busy(client: Redis) -> Iterator[None]:
    """Somebody's script runs for long: -BUSY."""
    client.config_set("lua-time-limit", "20")
    port = client.connection_pool.connection_kwargs["port"]
    with ThreadPoolExecutor(1) as pool, Redis(host="127.0.0.1", port=port) as own:
        running = pool.submit(own.eval, "while true do end", 0)
        try:
            while not _is_busy(client):
                assert not running.done(), running.result()
            yield
        finally:
            client.script_kill()
        with pytest.raises(ResponseError, match="killed"):
            running.result(10)


def _is_busy(client: Redis) -> bool:
    try:
        return not client.ping()
    except ResponseError as error:
        return "BUSY" in str(error)


@contextmanager
def crowded(client: Redis) -> Iterator[None]:
    """Nobody else may connect: -ERR max number of clients reached."""
    before = cast(dict[str, str], client.config_get("maxclients"))["maxclients"]
    client.config_set("maxclients", "1")
    drop_connections(client)
    yield
    client.config_set("maxclients", before)


@contextmanager
def locked(client: Redis) -> Iterator[None]:
    """Its password was changed: -NOAUTH."""
    client.config_set("requirepass", "another")
    drop_connections(client)
    yield
    client.config_set("requirepass", "")


class Refusal(Protocol):
    """One way to refuse, while its block lasts."""

    __name__: str

    def __call__(self, client: Redis) -> AbstractContextManager[None]: ...


WRITES: list[Refusal] = [full, read_only, alone]
ALL: list[Refusal] = [*WRITES, busy, crowded, locked]


@contextmanager
def refusing(redis: RedisServer, how: Refusal) -> Iterator[None]:
    """Refuse for the length of the block, and then no more, whatever happened in it."""
    # One connection for all: the refusal must not meet the one that ends it.
    client = Redis(host="127.0.0.1", port=redis.port, single_connection_client=True)
    with client, how(client):
        yield


@pytest.mark.parametrize("how", ALL)
async def test_a_post_is_503_and_a_running_message_goes_on_later(
    stack: Stack, how: Refusal
) -> None:
    key = {"Idempotency-Key": f"posted while {how.__name__}"}
    async with caller(stack.url) as api:
        message_id = await api.accepted(TEXT, rate=40)
        async with open_tail(api.events(message_id)) as tail:
            await tail.read_n(8)
            with refusing(stack.redis, how):
                watch = Stopwatch()
                assert_try_later(await api.post("a"))
                assert_try_later(await api.post("a", headers=key))
                assert watch.seconds < 8
                await tail.read_comments(2)
            frames = await tail.read_until_end(within=20)
        assert_whole_log(frames)
        assert visible_text(frames) == TEXT
        assert [f.raw for f in await api.log(message_id)] == [f.raw for f in frames]
        again = await api.post("a", headers=key)
        assert again.status_code == 202
        assert visible_text(await api.log(again.json()["message_id"])) == "a"


@pytest.mark.parametrize("how", WRITES)
async def test_what_only_reads_is_answered_and_a_cancel_is_503(stack: Stack, how: Refusal) -> None:
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

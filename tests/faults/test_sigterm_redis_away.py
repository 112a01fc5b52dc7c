"""SIGTERM while Redis is away: worker and API leave in time, and nobody lacks an answer."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.faults.conftest import SETTINGS
from tests.support.caller import (
    Stopwatch,
    assert_try_later,
    assert_whole_log,
    caller,
    until,
    visible_text,
)
from tests.support.processes import Stack, rejoin_stack
from tests.support.redis_server import RedisServer
from tests.support.scripted_redis import ScriptedRedis, scripted_redis
from tests.support.sse_reader import open_tail

TEXT = "an answer whose worker leaves while nobody can take it over yet " * 4
GRACE = 1.0
LEAVES_WITHIN = GRACE + 10  # as docs/operations.md has it


@pytest.mark.parametrize("stalls", [False, True])
async def test_a_worker_leaves_and_another_goes_on_when_redis_is_back(
    idle_stack: Stack, stalls: bool
) -> None:
    redis = idle_stack.redis
    leaver = idle_stack.new_worker(REJOIN_DRAIN_SECONDS=str(GRACE)).start()
    async with caller(idle_stack.url) as api:
        message_id = await api.accepted(TEXT, rate=12)
        async with open_tail(api.events(message_id)) as tail:
            await tail.read_n(6)
            if stalls:
                redis.pause()
            else:
                redis.kill()
            try:
                leaver.signal_stop()
                assert await asyncio.to_thread(leaver.wait, LEAVES_WITHIN) == 0
            finally:
                if stalls:
                    redis.resume()
                else:
                    redis.start()
            idle_stack.new_worker().start()
            frames = await tail.read_until_end(within=20)
        assert_whole_log(frames)
        assert visible_text(frames) == TEXT
        assert [frame.event for frame in frames].count("reset") == 1
        assert visible_text(await api.log(await api.accepted("the next"))) == "the next"


@pytest.fixture
async def mute() -> AsyncIterator[ScriptedRedis]:
    """A Redis that takes connections and commands, and says nothing of what became of them."""
    async with scripted_redis() as scripted:
        yield scripted


@pytest.fixture
def waiting_stack(own_redis: RedisServer, mute: ScriptedRedis) -> Iterator[Stack]:
    """Processes that only know the mute one; a test starts them."""
    settings = {**SETTINGS, "REJOIN_REDIS_URL": mute.url}
    with rejoin_stack(own_redis, apis=0, workers=0, settings=settings) as stack:
        yield stack
        stack.assert_no_traceback()


@pytest.mark.parametrize("key", [None, "sent as it leaves"])
async def test_a_post_in_flight_is_answered_before_its_api_leaves(
    waiting_stack: Stack, mute: ScriptedRedis, key: str | None
) -> None:
    """Each of its waits is bounded by itself, and all of them together would take too long."""
    leaver = await asyncio.to_thread(waiting_stack.new_api().start_unready)
    async with caller(leaver.url) as api:
        headers = {"Idempotency-Key": key} if key else {}
        posting = asyncio.create_task(api.post("a", headers=headers))
        await until(lambda: has_scripts_to_run(mute, 1))
        watch = Stopwatch()
        leaver.signal_stop()
        await until(lambda: has_scripts_to_run(mute, 2))
        mute.say(b"-NOSCRIPT No matching script.\r\n")
        assert_try_later(await posting)
        assert watch.seconds < 5
        assert await asyncio.to_thread(leaver.wait, 5) == 0
        assert watch.seconds < 5


async def has_scripts_to_run(mute: ScriptedRedis, count: int) -> bool:
    return [command[0] for command in mute.commands].count(b"EVALSHA") >= count

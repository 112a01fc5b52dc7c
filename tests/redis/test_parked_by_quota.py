"""A message whose provider's key has no room for it: it is parked, and goes on in its turn."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from redis.asyncio import Redis

from rejoin.shared import keys, log, queue, quota, record
from rejoin.shared.ending import Ender, end_message
from rejoin.shared.fold import Message, fold
from rejoin.shared.record import Status
from rejoin.shared.settings_file import Quota
from rejoin.worker.quota_scopes import Known
from tests.support.in_process import RunningWorker, until_ended, until_events
from tests.support.limited_provider import ANSWERED, LimitedProvider
from tests.support.limited_workers import all_ended, workers_of
from tests.support.messages import LIFE, post, until, until_true
from tests.support.redis_server import RedisServer

TEXT = "".join(ANSWERED)
MODEL = "openai/m"
WINDOW = 3.0
ORDER = ["a1", "b1", "c1", "a2", "b2", "a3", "a4"]
ONE = Quota(requests_per_minute=1)


@pytest.fixture
async def server() -> AsyncIterator[LimitedProvider]:
    """One request in a window of three seconds."""
    async with LimitedProvider(requests=1, window_seconds=WINDOW, sliding=True) as server:
        yield server


async def status(redis: Redis, message_id: str) -> Status:
    found = await record.load(redis, message_id)
    assert found is not None
    return found.status


async def until_waiting(redis: Redis, message_id: str) -> None:
    async def waits() -> bool:
        held = await redis.hexists(keys.OWNERS, message_id)  # type: ignore[misc]
        return not held and await status(redis, message_id) is Status.WAITING

    await until(waits)


def known_to(worker: RunningWorker) -> Known:
    """What a worker knows of the quota."""
    known = worker.kit.admission.known_of(MODEL)
    assert known is not None
    known.used_at = time.monotonic()
    return known


async def told(redis: Redis, message_id: str) -> Message:
    return fold(await log.read_all(redis, message_id))


async def names(redis: Redis, message_id: str) -> list[str]:
    return [frame.name for frame in await log.read_all(redis, message_id)]


@asynccontextmanager
async def one_parked(
    redis: Redis, server: LimitedProvider, monkeypatch: pytest.MonkeyPatch, url: str, **more: Any
) -> AsyncIterator[tuple[list[RunningWorker], str]]:
    """Workers under a quota of one request, and a second message that waits for it."""
    chosen: dict[str, Any] = {"quota": ONE, "count": 1} | more
    async with workers_of(url, server, monkeypatch, **chosen) as workers:
        first = await post(redis, model=MODEL)
        await until_ended(redis, first)
        message_id = await post(redis, model=MODEL)
        await until_waiting(redis, message_id)
        yield workers, message_id


async def test_it_says_so_holds_no_worker_and_goes_on_in_another_attempt(
    redis: Redis, clean_redis_url: str, server: LimitedProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with one_parked(redis, server, monkeypatch, clean_redis_url) as ((worker,), message_id):
        assert await names(redis, message_id) == ["start", "retry"]
        assert not worker.worker.tasks
        due_ms = await redis.zscore(keys.QUEUE, message_id)
        assert due_ms is not None
        frames = await until_ended(redis, message_id)
    retry, reset = (
        next(frame for frame in frames if frame.name == name) for name in ("retry", "reset")
    )
    assert b'"reason":"rate_limited"' in retry.json
    assert b'"after":null' in reset.json
    assert b'"reason":"rate_limited"' in reset.json
    assert [frame.name for frame in frames] == [
        *("start", "retry", "reset"),
        *["text"] * len(ANSWERED),
        *("step", "usage", "done"),
    ]
    assert server.refused == []
    found = await record.load(redis, message_id)
    assert found is not None
    assert 1000 < found.waited_ms < 10_000


async def test_a_cancel_ends_it_at_once_and_gives_its_place_up(
    redis: Redis, clean_redis_url: str, server: LimitedProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with one_parked(redis, server, monkeypatch, clean_redis_url) as (_, message_id):
        await record.cancel(redis, message_id)
        await end_message(Ender(redis, "api", LIFE), message_id)
        message = await told(redis, message_id)
        assert message.end is not None
        assert message.end.fields["finish_reason"] == "cancelled"
        found = await record.load(redis, message_id)
        assert found is not None
        key, _, scope = found.line.partition(" ")
        assert await redis.zcard(keys.quota(key, scope)[6]) == 0
    assert len(server.met) == 1


async def test_a_cancel_that_nobody_follows_up_is_ended_by_a_worker(
    redis: Redis, clean_redis_url: str, server: LimitedProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with one_parked(redis, server, monkeypatch, clean_redis_url) as (_, message_id):
        await record.cancel(redis, message_id)
        await queue.wake(redis, message_id)
        frames = await until_ended(redis, message_id)
    assert b"cancelled" in frames[-1].json
    assert len(server.met) == 1


async def test_another_worker_takes_it_when_its_own_has_gone(
    redis: Redis, clean_redis_url: str, server: LimitedProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with one_parked(redis, server, monkeypatch, clean_redis_url, count=2) as (
        workers,
        message_id,
    ):
        await workers[0].stop()
        workers[0].dead = True
        frames = await until_ended(redis, message_id)
    assert fold(frames).text == TEXT


async def test_those_that_wait_begin_by_turns_of_their_callers(
    redis: Redis, clean_redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        LimitedProvider(requests=100, window_seconds=60, takes_seconds=0.05) as server,
        workers_of(
            clean_redis_url, server, monkeypatch, 2, quota=Quota(requests_at_once=1)
        ) as workers,
    ):
        assert workers
        async with LimitedSlot(redis, workers[0]):
            ids = dict[str, str]()
            for owner in ("a", "a", "a", "a", "b", "b", "c"):
                name = f"{owner}{sum(key[0] == owner for key in ids) + 1}"
                ids[name] = await post(redis, model=MODEL, owner=owner)
                await until_waiting(redis, ids[name])
        await until(lambda: all_ended(redis))
    order = [one.message_id for one in server.taken]
    by_id = {message_id: name for name, message_id in ids.items()}
    assert [by_id[message_id] for message_id in order] == ORDER
    assert server.most_at_once == 1


class LimitedSlot:
    """Holds the only slot of the quota for a block, as a call of another worker would."""

    def __init__(self, redis: Redis, worker: RunningWorker) -> None:
        self._redis = redis
        self._scope = known_to(worker).scope

    async def __aenter__(self) -> None:
        asked, _ = await quota.admit(
            self._redis,
            self._scope,
            "long",
            "long",
            caller="",
            tokens=1,
            slot_ms=60_000,
            patience_ms=0,
        )
        assert asked.admitted
        # So that nobody takes it for one that is over soon.
        state = keys.quota(self._scope.key, self._scope.name)[1]
        await self._redis.hset(state, "mean", "60000")  # type: ignore[misc]

    async def __aexit__(self, *_: object) -> None:
        stands = await quota.settle(
            self._redis, self._scope, "long", tokens=1, made=True, took_seconds=0.05
        )
        for place in stands.following:
            await queue.wake(self._redis, place.name)


async def test_the_slots_of_a_worker_that_was_killed_come_free(
    redis: Redis, clean_redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        LimitedProvider(requests=100, window_seconds=60, takes_seconds=3600) as slow,
        workers_of(
            clean_redis_url, slow, monkeypatch, 1, quota=Quota(requests_at_once=1), lease_seconds=1
        ) as (worker,),
    ):
        lost = await post(redis, model=MODEL)
        await slow.request()
        next_one = await post(redis, model=MODEL)
        await until_events(redis, next_one, 1)
        await worker.die()
        slow.takes_seconds = 0
        async with workers_of(
            clean_redis_url, slow, monkeypatch, 1, quota=Quota(requests_at_once=1), lease_seconds=1
        ):
            for message_id in (lost, next_one):
                assert fold(await until_ended(redis, message_id, within=20)).text == TEXT
    assert slow.most_at_once == 1


async def test_a_429_with_retry_after_parks_the_key_for_every_worker(
    redis: Redis, clean_redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        LimitedProvider(requests=1, window_seconds=30, sliding=True, tells=False) as server,
        workers_of(clean_redis_url, server, monkeypatch, 2) as workers,
    ):
        first = await post(redis, model=MODEL)
        await until_ended(redis, first)
        refused = await post(redis, model=MODEL)
        await until_waiting(redis, refused)
        knows = [known_to(worker) for worker in workers]
        await until_true(lambda: all(known.bounded for known in knows), within=3)
        others = [await post(redis, model=MODEL) for _ in range(10)]
        for message_id in others:
            await until_waiting(redis, message_id)
    assert len(server.refused) == 1


@pytest.mark.parametrize("usable", [True, False])
async def test_a_key_that_is_parked_for_long_is_left_for_a_fallback_where_there_is_one(
    usable: bool,
    redis: Redis,
    clean_redis_url: str,
    server: LimitedProvider,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fields: dict[str, Any] = {"fallbacks": ["demo/echo?rate=0"]} if usable else {}
    async with workers_of(clean_redis_url, server, monkeypatch, 1) as (worker,):
        known = known_to(worker)
        await quota.heard(redis, known.scope, "x", refused=True, parked_seconds=600)
        known.bounded = True
        message_id = await post(redis, "words", model=MODEL, **fields)
        if usable:
            frames = await until_ended(redis, message_id)
            assert fold(frames).text == "words"
            assert [frame.name for frame in frames][:2] == ["start", "reset"]
        else:
            await until_waiting(redis, message_id)
            due_ms = await redis.zscore(keys.QUEUE, message_id)
            seconds, _ = await redis.time()
            assert due_ms is not None
            assert 590 < due_ms / 1000 - seconds <= 601
    assert server.met == []


async def test_failures_count_on_over_a_parking(
    redis: Redis, clean_redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        LimitedProvider(requests=1, window_seconds=2.5, sliding=True, tells=False) as server,
        workers_of(clean_redis_url, server, monkeypatch, 1, provider_retries=2),
    ):
        await until_ended(redis, await post(redis, model=MODEL))
        message_id = await post(redis, model=MODEL)
        await until_waiting(redis, message_id)
        # Another of the key's users takes what there is again.
        server.window_seconds = 3600
        frames = await until_ended(redis, message_id, within=15)
    assert len(server.refused) == 2
    assert frames[-1].name == "failed"
    assert b"rate_limited" in frames[-1].json


async def test_a_call_of_more_tokens_than_the_limit_is_made_all_the_same(
    redis: Redis, clean_redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        LimitedProvider(requests=9, window_seconds=WINDOW) as server,
        workers_of(clean_redis_url, server, monkeypatch, 1, quota=Quota(tokens_per_minute=10)),
    ):
        ids = [await post(redis, "word " * 400, model=MODEL, max_tokens=5000) for _ in range(2)]
        for message_id in ids:
            assert fold(await until_ended(redis, message_id)).text == TEXT


async def test_a_redis_that_restarts_loses_nobody_who_waits(
    own_redis: RedisServer,
    own_client: Redis,
    server: LimitedProvider,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with one_parked(own_client, server, monkeypatch, own_redis.url) as (_, message_id):
        await asyncio.to_thread(own_redis.kill)
        await asyncio.to_thread(own_redis.start)
        assert fold(await until_ended(own_client, message_id, within=30)).text == TEXT


async def test_a_thousand_that_wait_cost_no_command_each(
    redis: Redis, clean_redis_url: str, server: LimitedProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with workers_of(
        clean_redis_url,
        server,
        monkeypatch,
        1,
        quota=ONE,
        quota_seconds=60,
        lease_seconds=60,  # the reaper's first look at all that wait is another matter
    ):
        await until_ended(redis, await post(redis, model=MODEL))
        ids = [await post(redis, model=MODEL) for _ in range(1000)]

        async def all_wait() -> bool:
            return not await redis.hlen(keys.OWNERS)  # type: ignore[misc]

        await until(all_wait, within=40, every=0.2)
        assert await status(redis, ids[-1]) is Status.WAITING
        await redis.config_resetstat()
        await asyncio.sleep(3)
        stats = await redis.info("commandstats")
    calls = sum(stat["calls"] for stat in stats.values())
    assert calls < 900  # a poll that looks at each would be 3,000


async def test_a_key_without_a_known_limit_costs_a_call_nothing(
    redis: Redis, clean_redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        LimitedProvider(requests=100, tells=False) as server,
        workers_of(clean_redis_url, server, monkeypatch, 1),
    ):
        await until_ended(redis, await post(redis, model=MODEL))

        async def never(*_: object, **__: object) -> None:
            raise AssertionError("a command for a key that nothing bounds")

        for name in ("admit", "heard", "settle"):
            monkeypatch.setattr(quota, name, never)
        for _ in range(3):
            frames = await until_ended(redis, await post(redis, model=MODEL))
            assert fold(frames).text == TEXT

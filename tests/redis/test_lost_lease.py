"""A worker that lost its lease, its claim or a part of its log: one owner, and the exact text."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Sequence
from typing import cast

import pytest
from redis.asyncio import Redis

from rejoin.shared import keys, log, queue, record
from rejoin.shared.ending import aftermath
from rejoin.shared.fold import fold
from rejoin.worker import run
from rejoin.worker.providers.base import Chunk
from rejoin.worker.run import Run
from rejoin.worker.stopping import Stop
from tests.support.in_process import (
    SCRIPT,
    halfway,
    kit_for,
    until_ended,
    until_events,
    worker_on,
)
from tests.support.messages import batch, claim, ids, place, post, start, until, until_true
from tests.support.scripted_provider import SILENCE, Line, ScriptedProvider, answer, texts


async def lease(redis: Redis, token: str) -> None:
    await queue.lease(redis, token=token, lease_seconds=5, most=9, take_over=True)


async def test_a_dead_workers_message_is_taken_over_when_its_lease_ends(
    clean_redis_url: str, redis: Redis
) -> None:
    dying = ScriptedProvider([*texts("half of "), SILENCE])
    living = ScriptedProvider(answer("the whole"))
    async with worker_on(clean_redis_url, dying, lease_seconds=0.6) as first:
        message_id = await post(redis, model=SCRIPT)
        await until_events(redis, message_id, 2)
        await first.die()
    async with worker_on(clean_redis_url, living, name="worker-2", lease_seconds=0.6):
        frames = await until_ended(redis, message_id, within=0.6 + 1)
    assert [frame.name for frame in frames].count("reset") == 1
    assert fold(frames).text == "the whole"
    assert fold(frames).attempts[-1]["attempt"] == 2
    usage = fold(frames).usage
    assert usage is not None
    assert usage["estimated"] is True  # both runs are billed, and the first had no time to report


async def test_a_crowd_of_takeovers_all_open_before_the_first_calls_its_provider(
    clean_redis_url: str, redis: Redis
) -> None:
    lost = []
    for _ in range(100):
        message_id = await post(redis, model=SCRIPT)
        owner = await claim(redis, message_id, "lost")
        await log.append(redis, batch(message_id, owner, 0, [start(message_id)]))
        await redis.zincrby(keys.QUEUE, 60_000, message_id)
        lost.append(message_id)
    opening = list[int]()

    class Asked(ScriptedProvider):
        async def _play(self, script: Sequence[Line]) -> AsyncIterator[Chunk]:
            opening.append(running.kit.openings.under_way)
            async for chunk in super()._play(script):
                yield chunk

    async with worker_on(clean_redis_url, Asked(answer("here"))) as running:
        await redis.zadd(keys.QUEUE, dict.fromkeys(lost, 1))  # all of them due at once
        for message_id in lost:
            await until_ended(redis, message_id)
    assert opening == [0] * len(lost)


async def test_a_worker_without_the_lease_claims_nothing(redis: Redis) -> None:
    message_id = await post(redis)
    await lease(redis, "old")
    await redis.zincrby(keys.QUEUE, -60_000, message_id)
    await lease(redis, "new")
    owner = await claim(redis, message_id, "owner")
    await log.append(redis, batch(message_id, owner, 0, [start(message_id)]))
    provider = ScriptedProvider(answer("never"))
    async with asyncio.timeout(5):
        await Run(kit_for(redis, provider), message_id, "old").run()
    assert provider.calls == []
    assert (await claim(redis, message_id, "owner")).attempt == 1
    await log.append(redis, batch(message_id, owner, 1, ["it goes on"]))
    assert (await place(redis, message_id)).owner == b"new"


async def test_a_fenced_worker_leaves_job_and_log_to_the_new_owner(
    clean_redis_url: str, redis: Redis
) -> None:
    async with halfway(clean_redis_url, redis) as (message_id, provider, gate):
        await cast(Awaitable[int], redis.hset(keys.OWNERS, message_id, "another"))
        owner = await claim(redis, message_id, "another")
        gate.set()
        await until_true(lambda: provider.open == 0)
        await log.append(redis, batch(message_id, owner, 0, ["mine"]))
        assert (await place(redis, message_id)).owner == b"another"
    assert await ids(redis, message_id) == ["1-0", "1-1", "2-0"]
    assert (await place(redis, message_id)).owner == b"another"
    assert await redis.exists(keys.job(message_id))


async def test_a_worker_hears_from_its_beat_that_a_lease_is_lost(
    clean_redis_url: str, redis: Redis
) -> None:
    async with halfway(clean_redis_url, redis, lease_seconds=0.3) as (message_id, provider, _):
        await cast(Awaitable[int], redis.hset(keys.OWNERS, message_id, "another"))
        await until_true(lambda: provider.open == 0)
    assert (await place(redis, message_id)).owner == b"another"
    assert await ids(redis, message_id) == ["1-0", "1-1"]


async def test_a_job_that_is_done_is_no_lost_lease(
    clean_redis_url: str,
    redis: Redis,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def told_late(
        client: Redis, message_id: str, *, job_token: str, life_seconds: int
    ) -> bool:
        done = await aftermath(client, message_id, job_token=job_token, life_seconds=life_seconds)
        await until_true(lambda: message_id not in running.worker._leases.held)
        return done

    monkeypatch.setattr(run, "aftermath", told_late)
    provider = ScriptedProvider(answer("here"))
    async with worker_on(clean_redis_url, provider, lease_seconds=0.6) as running:
        await until_ended(redis, await post(redis, model=SCRIPT))
    assert "is lost" not in caplog.text


@pytest.mark.parametrize("lost", ["all", "tail", "claim", "record"])
async def test_a_log_that_went_back_is_written_anew_with_the_exact_text(
    clean_redis_url: str, redis: Redis, lost: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rejoin.worker.story.MOST_BYTES", 0)  # so that nothing is told again
    gate = asyncio.Event()
    first = [*texts("half ", "of "), gate, *texts("it"), SILENCE]
    provider = ScriptedProvider(first, answer("the ", "whole"))
    message_id = await post(redis, model=SCRIPT)
    before = await redis.dump(keys.record(message_id))
    async with worker_on(clean_redis_url, provider, max_attempts=1):
        await until_events(redis, message_id, 3)
        if lost == "all":
            await redis.delete(keys.log(message_id))
        elif lost == "tail":
            await redis.xdel(keys.log(message_id), "1-2")
        elif lost == "claim":
            fields = ("attempt", "token", "worker", "run_id", "running", "lost", "wrote", "bytes")
            await cast(Awaitable[int], redis.hdel(keys.record(message_id), *fields))
        else:
            await redis.restore(keys.record(message_id), 0, before, replace=True)
        gate.set()
        frames = await until_ended(redis, message_id)
    assert frames[-1].name == "done"  # and not attempts_exhausted: no worker was lost
    message = fold(frames)
    assert (message.text, message.gap) == ("the whole", False)
    assert json.loads(frames[-1].json)["text_chars"] == len("the whole")
    seen = [frame.id for frame in frames]
    assert seen == sorted(set(seen))


async def test_a_record_attempts_behind_its_log_is_caught_up_with_at_once(
    clean_redis_url: str, redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    message_id = await post(redis, model=SCRIPT)
    older = await redis.dump(keys.record(message_id))
    for n in range(9):
        owner = await claim(redis, message_id, f"t{n}")
        await log.append(redis, batch(message_id, owner, 0, [start(message_id) if n == 0 else "a"]))
        await record.hand_over(redis, message_id, f"t{n}")
    await redis.restore(keys.record(message_id), 0, older, replace=True)
    async with worker_on(clean_redis_url, ScriptedProvider(answer("whole")), max_attempts=1):
        frames = await until_ended(redis, message_id, within=5)
    assert frames[-1].name == "done"
    assert fold(frames).text == "whole"
    assert caplog.text.count("Redis lost events") <= 2
    assert len(frames) - 9 == len(["reset", "text", "step", "usage", "done"])


@pytest.mark.parametrize("reason", [Stop.HANDED_OVER, Stop.LEASE_LOST])
async def test_a_stop_while_the_log_is_taken_up_again_is_heeded(
    redis: Redis, reason: Stop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rejoin.worker.story.MOST_BYTES", 0)  # so that nothing is told again
    gate = asyncio.Event()
    provider = ScriptedProvider([*texts("one"), gate, *texts("two"), SILENCE])
    kit = kit_for(redis, provider)
    message_id = await post(redis, model=SCRIPT)
    await lease(redis, "job")
    appending = asyncio.create_task(kit.appender.run())
    attempt = Run(kit, message_id, "job")
    running = asyncio.create_task(attempt.run())
    await until_events(redis, message_id, 2)
    await redis.delete(keys.log(message_id))
    gate.set()
    await until_true(lambda: provider.open == 0)
    attempt.stop(reason)  # in the pause before the next attempt
    async with asyncio.timeout(5):
        await running
    assert len(provider.calls) == 1
    appending.cancel()
    await asyncio.gather(appending, return_exceptions=True)


async def test_our_own_expired_lease_taken_again_lets_the_run_go_on(
    clean_redis_url: str, redis: Redis
) -> None:
    go = asyncio.Event()
    provider = ScriptedProvider([*texts("half "), go, *answer("whole")], answer("other"))
    async with worker_on(clean_redis_url, provider, lease_seconds=0.5) as only:
        message_id = await post(redis, model=SCRIPT)
        await until_events(redis, message_id, 2)
        before = await cast(Awaitable[bytes], redis.hget(keys.OWNERS, message_id))

        async def taken_again() -> bool:
            return before != await cast(Awaitable[bytes], redis.hget(keys.OWNERS, message_id))

        async with only_no_renewals(only):
            await redis.zincrby(keys.QUEUE, -60_000, message_id)
            await until(taken_again)
        go.set()
        frames = await until_ended(redis, message_id)
    message = fold(frames)
    assert message.text == "half whole"
    assert len(message.attempts) == 1
    assert await place(redis, message_id) == (None, None, False)


async def test_a_beat_that_hears_of_our_own_new_lease_first_lets_the_run_go_on(
    clean_redis_url: str, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    go, beat = asyncio.Event(), asyncio.Event()
    lease, renew = queue.lease, queue.renew

    async def lease_slowly(*args: object, **more: object) -> dict[str, bytes]:
        taken = await lease(*args, **more)  # type: ignore[arg-type]
        if taken and provider.calls and not beat.is_set():
            await asyncio.wait_for(beat.wait(), 5)
        return taken

    async def tell(*args: object, **more: object) -> list[str]:
        lost = await renew(*args, **more)  # type: ignore[arg-type]
        if lost:
            asyncio.get_running_loop().call_soon(beat.set)
        return lost

    provider = ScriptedProvider([*texts("half "), go, *answer("whole")], answer("other"))
    monkeypatch.setattr(queue, "lease", lease_slowly)
    monkeypatch.setattr(queue, "renew", tell)
    async with worker_on(clean_redis_url, provider, lease_seconds=2.0):
        message_id = await post(redis, model=SCRIPT)
        await until_events(redis, message_id, 2)

        async def heard() -> bool:
            if not beat.is_set():
                await redis.zadd(keys.QUEUE, {message_id: 1}, xx=True)
            return beat.is_set()

        await until(heard)  # a beat may come between, and renew it
        go.set()
        frames = await until_ended(redis, message_id)
    message = fold(frames)
    assert message.text == "half whole"
    assert len(message.attempts) == 1


class only_no_renewals:  # noqa: N801  read as a function
    """Let a worker's beat find nothing to renew, as if it had been late."""

    def __init__(self, running: object) -> None:
        self._leases = running.worker._leases  # type: ignore[attr-defined]

    async def __aenter__(self) -> None:
        self._renew = self._leases._renew

        async def nothing() -> None:
            return None

        self._leases._renew = nothing

    async def __aexit__(self, *_: object) -> None:
        self._leases._renew = self._renew


async def test_a_job_that_cannot_be_started_ends_no_worker(
    clean_redis_url: str, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with worker_on(clean_redis_url, lease_seconds=0.5) as running:
        run_job, failed = running.worker.run_job, asyncio.Event()

        async def failing(job_id: str, score: int) -> None:
            if not failed.is_set():
                failed.set()
                raise ConnectionError("lost in the middle")
            await run_job(job_id, score)

        monkeypatch.setattr(running.worker, "run_job", failing)
        message_id = await post(redis)
        frames = await until_ended(redis, message_id)
        assert failed.is_set()
        assert fold(frames).text == "one two three"
        assert running.worker.job_counter == 0
        await until(lambda: _none_held(running))


async def _none_held(running: object) -> bool:
    return running.worker._leases.held == {}  # type: ignore[attr-defined]

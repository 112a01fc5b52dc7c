"""A worker on a real Redis: what it starts, keeps, ends and gives back."""

import asyncio
import json
from collections.abc import Awaitable
from typing import Any, cast

import pytest
from redis.asyncio import Redis

from rejoin.shared import jobs, keys, queue, record
from rejoin.shared.errors import ProviderError
from rejoin.shared.fold import fold
from rejoin.shared.frames import Frame
from rejoin.shared.ids import new_message_id
from rejoin.shared.record import Status
from rejoin.shared.request import StoredRequest, StoredTurn
from rejoin.worker.providers.base import Chunk, ModelRequest, TextChunk
from tests.support.in_process import SCRIPT, halfway, until_ended, until_events, worker_on
from tests.support.logs import names
from tests.support.messages import accept, enqueue, place, post, until, until_true
from tests.support.scripted_provider import SILENCE, ScriptedProvider, answer, texts


def told(frames: list[Frame]) -> list[tuple[str, dict[str, object]]]:
    """Names and data of a log, without what differs from run to run."""
    return [(frame.name, json.loads(frame.json)) for frame in frames]


async def test_a_message_runs_from_start_to_done(clean_redis_url: str, redis: Redis) -> None:
    async with worker_on(clean_redis_url):
        message_id = await post(redis, "one two three")
        frames = await until_ended(redis, message_id)
    assert names(frames) == ["start", "text", "text", "text", "step", "usage", "done"]
    assert [str(frame.id) for frame in frames] == [f"1-{n}" for n in range(7)]
    events = dict(told(frames))
    assert events["step"] == {"step": 1, "finish_reason": "stop"}
    assert events["done"] == {"finish_reason": "stop", "text_chars": 13}
    assert fold(frames).text == "one two three"
    assert await place(redis, message_id) == (None, None, False)
    assert await redis.exists(keys.job(message_id), keys.job_tries(message_id)) == 0


async def test_after_a_message_no_key_is_left_without_an_expiry(
    clean_redis_url: str, redis: Redis
) -> None:
    async with worker_on(clean_redis_url):
        await until_ended(redis, await post(redis))
        await until_ended(redis, await post(redis, model="demo/nonsense"))
    lasting = [name async for name in redis.scan_iter() if await redis.ttl(name) == -1]
    assert lasting == []


async def test_a_message_starts_by_its_wake_token_and_not_by_the_poll(
    clean_redis_url: str, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rejoin.worker.wake.POLL_SECONDS", 2.8)
    async with worker_on(clean_redis_url):
        for _ in range(2):
            await until(lambda: _blocked(redis))
            message_id = await post(redis)
            async with asyncio.timeout(1.4):
                await until_ended(redis, message_id)


async def _blocked(redis: Redis) -> bool:
    return (await redis.info("clients"))["blocked_clients"] == 1


async def test_a_message_that_comes_due_without_a_token_is_found_by_the_poll(
    clean_redis_url: str, redis: Redis
) -> None:
    async with worker_on(clean_redis_url):
        message_id = await post_later(redis, 600)
        assert await redis.exists(keys.WAKE) == 0
        await until_ended(redis, message_id)


async def post_later(redis: Redis, due_in_ms: int) -> str:
    """Queue a message for later, as one that was put off: no token tells of it."""
    message_id = await accept(redis)
    seconds, micros = cast(tuple[int, int], await redis.time())
    job = jobs.encode({"t": None, "f": "run_message", "a": [message_id], "k": {}, "et": 0})
    await redis.set(keys.job(message_id), job)
    score = seconds * 1000 + micros // 1000 + due_in_ms
    await redis.zadd(keys.QUEUE, {message_id: score})
    return message_id


async def test_no_more_run_at_once_than_max_jobs_and_the_rest_is_left_to_others(
    clean_redis_url: str, redis: Redis
) -> None:
    slow, other = (ScriptedProvider([SILENCE]) for _ in range(2))
    async with worker_on(clean_redis_url, slow, max_jobs=2) as first:
        message_ids = [await post(redis, model=SCRIPT) for _ in range(5)]
        await until_true(lambda: slow.open == 2)
        assert first.worker.job_counter == 2
        async with worker_on(clean_redis_url, other, name="worker-2", max_jobs=9):
            await until_true(lambda: other.open == 3)
            assert slow.open == 2
            for message_id in message_ids:
                await record.cancel(redis, message_id)
            for message_id in message_ids:
                await until_ended(redis, message_id)


async def test_a_slot_that_is_freed_takes_the_next_message_at_once(
    clean_redis_url: str, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rejoin.worker.wake.POLL_SECONDS", 2.8)
    monkeypatch.setattr("rejoin.worker.arq_worker.POLL_SECONDS", 2.8)
    async with worker_on(clean_redis_url, max_jobs=1):
        message_ids = [await post(redis) for _ in range(6)]
        async with asyncio.timeout(2.5):
            for message_id in message_ids:
                await until_ended(redis, message_id)


async def test_a_message_longer_than_its_lease_stays_with_its_worker(
    clean_redis_url: str, redis: Redis
) -> None:
    text = "a word and " * 6
    async with (
        worker_on(clean_redis_url, lease_seconds=0.5),
        worker_on(clean_redis_url, lease_seconds=0.5, name="worker-2"),
    ):
        message_id = await post(redis, text, model="demo/echo?rate=9")
        await until_events(redis, message_id, 2)
        owner = (await place(redis, message_id)).owner
        worker = cast(record.Record, await record.load(redis, message_id)).worker
        frames = await until_ended(redis, message_id)
        found = await record.load(redis, message_id)
    assert owner is not None
    assert found is not None
    assert (found.attempt, found.worker) == (1, worker)
    assert "reset" not in names(frames)
    assert fold(frames).text == text


async def test_a_cancel_ends_a_silent_provider_and_closes_its_connection(
    clean_redis_url: str, redis: Redis
) -> None:
    provider = ScriptedProvider([*texts("one ", "two"), SILENCE])
    async with worker_on(clean_redis_url, provider):
        message_id = await post(redis, model=SCRIPT)
        await until_events(redis, message_id, 3)
        await record.cancel(redis, message_id)
        async with asyncio.timeout(1):
            frames = await until_ended(redis, message_id)
        assert provider.open == 0
    assert names(frames) == ["start", "text", "text", "usage", "done"]
    assert told(frames)[-1][1] == {"finish_reason": "cancelled", "text_chars": 7}
    assert told(frames)[-2][1]["estimated"] is True


async def test_a_cancel_before_the_run_ends_it_without_a_call(
    clean_redis_url: str, redis: Redis
) -> None:
    provider = ScriptedProvider(answer("never"))
    message_id = await post(redis, model=SCRIPT)
    await record.cancel(redis, message_id)
    async with worker_on(clean_redis_url, provider):
        frames = await until_ended(redis, message_id)
    assert names(frames) == ["start", "usage", "done"]
    assert told(frames)[1][1]["estimated"] is False
    assert provider.calls == []


async def test_a_cancel_that_nobody_heard_is_told_by_the_next_append(
    clean_redis_url: str, redis: Redis
) -> None:
    async with halfway(clean_redis_url, redis) as (message_id, _, gate):
        await cast(Awaitable[int], redis.hset(keys.record(message_id), "cancel", "1"))
        gate.set()
        frames = await until_ended(redis, message_id)
    assert told(frames)[-1][1]["finish_reason"] == "cancelled"


async def test_a_cancel_missed_while_the_subscription_was_lost_is_found_after_it(
    clean_redis_url: str, redis: Redis
) -> None:
    async with halfway(clean_redis_url, redis) as (message_id, _, _):
        await cast(Awaitable[int], redis.hset(keys.record(message_id), "cancel", "1"))
        await redis.execute_command("CLIENT", "KILL", "TYPE", "pubsub")  # type: ignore[no-untyped-call]
        frames = await until_ended(redis, message_id)
    assert told(frames)[-1][1]["finish_reason"] == "cancelled"


async def test_a_cancel_as_the_model_ends_is_kept(clean_redis_url: str, redis: Redis) -> None:
    """The flag is set behind the run's back between its last chunk and its end."""

    class CancelsItself(ScriptedProvider):
        message_id = ""

        async def _play(self, script: object) -> object:  # type: ignore[override]
            yield TextChunk("one")
            await cast(Awaitable[int], redis.hset(keys.record(self.message_id), "cancel", "1"))
            for chunk in answer():
                yield chunk

    provider = CancelsItself([])
    message_id = provider.message_id = await accept(redis, model=SCRIPT)
    async with worker_on(clean_redis_url, provider):
        await enqueue(redis, message_id)
        frames = await until_ended(redis, message_id)
    assert told(frames)[-1][1]["finish_reason"] == "cancelled"
    assert names(frames).count("usage") == 1


async def test_a_full_log_ends_in_done_with_length(clean_redis_url: str, redis: Redis) -> None:
    provider = ScriptedProvider([line for _ in range(200) for line in (*texts("x" * 100), 0.001)])
    async with worker_on(clean_redis_url, provider, max_log_bytes=4096):
        message_id = await post(redis, model=SCRIPT)
        frames = await until_ended(redis, message_id)
        assert provider.open == 0
    text = fold(frames).text
    assert told(frames)[-1] == ("done", {"finish_reason": "length", "text_chars": len(text)})
    assert names(frames)[-2] == "usage"
    assert 4096 <= sum(len(frame.data) for frame in frames) < 8192


async def test_a_spoilt_log_ends_no_worker(clean_redis_url: str, redis: Redis) -> None:
    spoilt = await post(redis)
    await redis.set(keys.log(spoilt), "no stream")
    async with worker_on(clean_redis_url):
        frames = await until_ended(redis, await post(redis))
    assert fold(frames).text == "one two three"


async def test_a_job_without_a_record_is_put_off_and_runs_once_the_record_is_there(
    clean_redis_url: str, redis: Redis
) -> None:
    message_id = new_message_id()
    await queue.index(redis, message_id, most_due=10)
    async with worker_on(clean_redis_url):
        await enqueue(redis, message_id)
        await until(lambda: _waits(redis, message_id))
        await accept(redis, message_id=message_id)
        frames = await until_ended(redis, message_id)
    assert fold(frames).text == "one two three"
    assert names(frames)[0] == "start"


async def _waits(redis: Redis, message_id: str) -> bool:
    found = await place(redis, message_id)
    return found.owner is None and (found.due_in_ms or 0) > 100


async def test_a_record_that_vanishes_in_mid_run_is_final(
    clean_redis_url: str, redis: Redis
) -> None:
    async with halfway(clean_redis_url, redis) as (message_id, provider, gate):
        await redis.zrem(keys.OPEN, message_id)
        await redis.delete(keys.record(message_id))
        gate.set()
        await until(lambda: _gone(redis, message_id))
        assert provider.open == 0
    assert await redis.exists(keys.record(message_id)) == 0


async def _gone(redis: Redis, message_id: str) -> bool:
    return await place(redis, message_id) == (None, None, False)


@pytest.mark.parametrize(
    ("script", "code", "has_usage"),
    [
        ([ProviderError("no", code="authentication", retryable=False, status=401)],
         "authentication", True),
        ([*texts("one"), ProviderError("no", code="provider_unavailable", retryable=True)],
         "provider_unavailable", True),
        ([*texts("one")], "provider_protocol", True),
        ([*texts("one"), ZeroDivisionError("a defect")], "internal", True),
    ],
)  # fmt: skip
async def test_a_provider_that_fails_ends_the_message_with_its_code(
    clean_redis_url: str,
    redis: Redis,
    script: list[Chunk | Exception],
    code: str,
    has_usage: bool,
) -> None:
    async with worker_on(clean_redis_url, ScriptedProvider(script)):
        message_id = await post(redis, model=SCRIPT)
        frames = await until_ended(redis, message_id)
    assert told(frames)[-1][0] == "failed"
    assert told(frames)[-1][1]["code"] == code
    assert ("usage" in names(frames)) == has_usage
    assert "step" not in names(frames)
    found = await record.load(redis, message_id)
    assert found is not None
    assert found.status is Status.FAILED


async def test_an_unknown_provider_fails_before_any_call(
    clean_redis_url: str, redis: Redis
) -> None:
    async with worker_on(clean_redis_url):
        frames = await until_ended(redis, await post(redis, model="nobody/x"))
    assert names(frames) == ["start", "failed"]
    assert told(frames)[-1][1]["code"] == "invalid_request"


async def test_a_request_that_cannot_be_read_fails_as_internal(
    clean_redis_url: str, redis: Redis
) -> None:
    message_id = await accept(redis)
    await redis.set(keys.request(message_id), "of another version")
    async with worker_on(clean_redis_url):
        await enqueue(redis, message_id)
        frames = await until_ended(redis, message_id)
    assert names(frames)[-1] == "failed"
    assert told(frames)[-1][1]["code"] == "internal"


@pytest.mark.parametrize(
    ("setting", "script", "code"),
    [
        ("timeout_first_token", [SILENCE], "provider_timeout"),
        ("timeout_idle", [*texts("one"), SILENCE], "provider_timeout"),
        ("timeout_total", [*texts("one"), SILENCE], "deadline_exceeded"),
    ],
)
async def test_a_deadline_ends_the_message(
    clean_redis_url: str, redis: Redis, setting: str, script: list[Chunk], code: str
) -> None:
    provider = ScriptedProvider(script)
    settings: dict[str, Any] = {setting: 0.1}
    async with worker_on(clean_redis_url, provider, **settings):
        frames = await until_ended(redis, await post(redis, model=SCRIPT))
        assert provider.open == 0
    assert told(frames)[-1][1]["code"] == code
    assert names(frames)[-2] == "usage"


async def test_what_a_provider_is_asked_is_what_was_accepted(
    clean_redis_url: str, redis: Redis
) -> None:
    provider = ScriptedProvider(answer("ok"))
    async with worker_on(clean_redis_url, provider):
        message_id = await post(redis, "the words", model=SCRIPT)
        await until_ended(redis, message_id)
    (asked,) = provider.calls
    assert isinstance(asked, ModelRequest)
    assert (asked.model, asked.reference) == ("x", message_id)
    assert [(turn.role, turn.content) for turn in asked.turns] == [("user", "the words")]


async def test_a_cancel_that_only_the_next_claim_tells_of_asks_no_fallback(
    clean_redis_url: str, redis: Redis
) -> None:
    broken = ProviderError("broke off", code="provider_unavailable", retryable=True)
    flagged = asyncio.Event()
    provider = ScriptedProvider([*texts("its text "), flagged, broken], answer("another's"))
    async with worker_on(clean_redis_url, provider):
        message_id = await accept(redis, model=SCRIPT)
        request = StoredRequest(SCRIPT, [StoredTurn("user", "x")], fallbacks=[SCRIPT])
        await redis.set(keys.request(message_id), request.encode())
        await enqueue(redis, message_id)
        await until_events(redis, message_id, 2)
        # The publish is lost, as while the subscription is away.
        await cast(Awaitable[int], redis.hset(keys.record(message_id), "cancel", "1"))
        flagged.set()
        frames = await until_ended(redis, message_id)
    assert fold(frames).text == "its text "
    assert told(frames)[-1] == ("done", {"finish_reason": "cancelled", "text_chars": 9})
    assert len(provider.calls) == 1

"""A process's side of the quotas: who goes ahead, what costs nothing, and Redis being away."""

import asyncio
import re
import tomllib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import fakeredis
import pytest
from redis.asyncio import Redis

from rejoin.shared import quota
from rejoin.shared.connections import open_redis
from rejoin.shared.errors import ProviderError
from rejoin.shared.events import FailureCode
from rejoin.shared.quota_scope import bounds_of
from rejoin.shared.rate_limits import Limit, RateLimits
from rejoin.shared.settings_file import Quota, SettingsFile
from rejoin.worker.admission import Admission, Admitted
from rejoin.worker.quota_scopes import Later, tokens_of
from tests.support.redis_server import free_port

KEYED: Final = {"OPENAI_API_KEY": "sk-0123456789"}
LIMITS: Final = RateLimits(Limit(60, 59, 1.0))
MODEL: Final = "openai/m"
SLOW_DOWN: Final = ProviderError(
    "slow down", code=FailureCode.RATE_LIMITED, retryable=True, retry_after_seconds=30
)
DOCS: Final = Path(__file__).parents[3] / "docs" / "how-to" / "quotas.md"


@pytest.fixture
async def redis() -> AsyncIterator[Redis]:
    client: Redis = fakeredis.FakeAsyncRedis()
    yield client
    await client.aclose()


def admission_on(redis: Redis, quotas: dict[str, Quota] | None = None) -> Admission:
    return Admission(redis, quotas or {}, lease_seconds=5, environ=KEYED)


async def ask(admission: Admission, model: str = MODEL, place: str = "p") -> Admitted | Later:
    return await admission.ask(model, place=place, caller="", tokens=10)


def test_the_documented_file_is_one() -> None:
    (shown,) = re.findall(r"```toml\n(.*?)```", DOCS.read_text(), re.DOTALL)
    file = SettingsFile.model_validate(tomllib.loads(shown))
    assert bounds_of(file.quota["openai"]) == (500, 200_000, 50)
    assert bounds_of(file.quota["ollama"]) == (0, 0, 4)


async def test_the_first_call_of_a_key_goes_ahead_until_its_headers_have_come(
    redis: Redis,
) -> None:
    admission = admission_on(redis)
    first = await ask(admission)
    assert isinstance(first, Admitted)
    others = [asyncio.create_task(ask(admission, place=f"p{n}")) for n in range(70)]
    await asyncio.sleep(0.02)
    assert not any(other.done() for other in others)
    first.heard(LIMITS)
    found = await asyncio.gather(*others)
    assert sum(isinstance(one, Admitted) for one in found) == 59
    await first.over()


async def test_a_first_call_that_is_not_answered_holds_the_others_up_for_a_second(
    redis: Redis,
) -> None:
    admission = admission_on(redis)
    await ask(admission)
    async with asyncio.timeout(5):
        assert isinstance(await ask(admission), Admitted)
        assert isinstance(await ask(admission), Admitted)


@pytest.mark.parametrize("model", ["demo/echo", "ollama/x", "agent/a", "nobody/x"])
async def test_what_has_no_key_is_held_up_by_nothing(redis: Redis, model: str) -> None:
    admission = admission_on(redis)
    calls = [await ask(admission, model) for _ in range(50)]
    assert all(isinstance(call, Admitted) and not call.counts for call in calls)
    assert await redis.keys() == []


async def test_a_first_answer_without_limits_lets_all_go_on_uncounted(redis: Redis) -> None:
    admission = admission_on(redis)
    first = await ask(admission)
    assert isinstance(first, Admitted)
    first.heard()
    calls = [await ask(admission) for _ in range(50)]
    assert all(isinstance(call, Admitted) and not call.counts for call in calls)


async def test_another_process_knows_at_once_what_one_has_learned(redis: Redis) -> None:
    one, other = admission_on(redis), admission_on(redis)
    first = await ask(one)
    assert isinstance(first, Admitted)
    first.heard(LIMITS)
    await first.over()
    second = await ask(other)
    assert isinstance(second, Admitted)
    assert second.counts


async def test_a_refusal_parks_the_key_and_whoever_asks_is_told_for_how_long(
    redis: Redis,
) -> None:
    admission = admission_on(redis)
    first = await ask(admission)
    assert isinstance(first, Admitted)
    assert await first.refused(SLOW_DOWN)
    await first.over()
    for model in (MODEL, "openai/another"):
        later = await ask(admission, model)
        assert isinstance(later, Later)
        assert 29 < later.seconds <= 30


@pytest.mark.parametrize(
    ("code", "retryable", "after"),
    [
        (FailureCode.RATE_LIMITED, True, None),
        (FailureCode.RATE_LIMITED, False, 30.0),  # no money left
        (FailureCode.PROVIDER_UNAVAILABLE, True, 30.0),
    ],
)
async def test_no_other_failure_parks_a_key(
    redis: Redis, code: FailureCode, retryable: bool, after: float | None
) -> None:
    admission = admission_on(redis)
    first = await ask(admission)
    assert isinstance(first, Admitted)
    error = ProviderError("no", code=code, retryable=retryable, retry_after_seconds=after)
    assert not await first.refused(error)
    await first.over()
    assert isinstance(await ask(admission), Admitted)


async def test_a_slot_that_comes_free_lets_who_waits_here_in_at_once(redis: Redis) -> None:
    admission = admission_on(redis, {"openai": Quota(requests_at_once=1)})
    first = await ask(admission)
    assert isinstance(first, Admitted)
    waiting = asyncio.create_task(
        admission.ask(MODEL, place="b", caller="", tokens=1, patience_seconds=1e6)
    )
    await asyncio.sleep(0.05)
    assert not waiting.done()
    await first.over(3)
    async with asyncio.timeout(0.9):  # less than it would sleep
        assert isinstance(await waiting, Admitted)


async def test_while_redis_is_away_calls_are_made_uncounted() -> None:
    away = open_redis(f"redis://127.0.0.1:{free_port()}/0", retries=0, timeout_seconds=0.2)
    admission = admission_on(away, {"openai": Quota(requests_per_minute=1)})
    for _ in range(3):
        call = await ask(admission)
        assert isinstance(call, Admitted)
        assert not call.counts
        assert not await call.refused(
            ProviderError("no", code="rate_limited", retryable=True, retry_after_seconds=9)
        )
        await call.over(5)
    await away.aclose()


def test_tokens_are_kept_for_what_is_shown_and_at_most_given() -> None:
    assert tokens_of(401, None) == 101
    assert tokens_of(400, 50) == 150


async def test_a_pause_that_no_message_waits_for_parks_nothing(redis: Redis) -> None:
    admission = Admission(redis, {}, lease_seconds=5, environ=KEYED, most_parked_seconds=3600)
    first = await ask(admission)
    assert isinstance(first, Admitted)
    refused = ProviderError("no", code="rate_limited", retryable=True, retry_after_seconds=3600)
    assert not await first.refused(refused)
    await first.over()
    assert isinstance(await ask(admission), Admitted)


async def test_who_goes_on_with_another_model_passes_a_parking_and_is_followed_by_others(
    redis: Redis,
) -> None:
    admission = admission_on(redis)
    first = await ask(admission)
    assert isinstance(first, Admitted)
    await first.refused(SLOW_DOWN)
    await first.over()
    ahead = await admission.ask("openai/b", place="b", caller="", tokens=1, goes_on=True)
    assert isinstance(ahead, Admitted)
    others = [
        asyncio.create_task(
            admission.ask("openai/b", place=f"b{n}", caller="", tokens=1, goes_on=True)
        )
        for n in range(9)
    ]
    assert isinstance(await ask(admission, "openai/b", "comes-along"), Later)
    assert not any(other.done() for other in others)
    ahead.heard()
    async with asyncio.timeout(0.9):  # or they would go on as it does not answer
        found = await asyncio.gather(*others)
    assert all(isinstance(one, Admitted) for one in found)
    assert isinstance(
        await admission.ask(MODEL, place="a", caller="", tokens=1, goes_on=True), Later
    )


async def test_who_goes_on_with_another_model_waits_once_that_is_refused_too(redis: Redis) -> None:
    admission = admission_on(redis, {"openai": Quota(requests_at_once=5)})
    for model in ("openai/a", "openai/b"):
        call = await admission.ask(model, place="p", caller="", tokens=1, goes_on=True)
        assert isinstance(call, Admitted)
        await call.refused(SLOW_DOWN)
        await call.over()
    for model in ("openai/a", "openai/b"):
        later = await admission.ask(model, place="p", caller="", tokens=1, goes_on=True)
        assert isinstance(later, Later)
        assert later.seconds > 29


async def test_a_slot_that_is_given_back_as_slots_are_kept_stays_free(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    admission = admission_on(redis, {"openai": Quota(requests_at_once=1)})
    call = await ask(admission)
    assert isinstance(call, Admitted)
    begun, go_on, done = asyncio.Event(), asyncio.Event(), asyncio.Event()
    keep = quota.keep

    async def slow(*args: Any, **more: Any) -> quota.Standing:
        begun.set()
        await go_on.wait()
        stands = await keep(*args, **more)
        done.set()
        return stands

    monkeypatch.setattr(quota, "keep", slow)
    running = asyncio.create_task(admission.run())
    async with asyncio.timeout(5):
        await begun.wait()
    over = asyncio.create_task(call.over(3))
    await asyncio.wait([over], timeout=0.2)  # else it would be over by then
    go_on.set()
    async with asyncio.timeout(2):
        await done.wait()
        await over
        assert isinstance(await ask(admission, place="next"), Admitted)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running

"""`rejoin doctor` says what each provider's key may be asked, and until when it is parked."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from rejoin.client.commands import doctor, process_checks, quota_check
from rejoin.shared import quota
from rejoin.shared.quota_scope import Bounds, Scope, key_of
from rejoin.shared.rate_limits import Limit, RateLimits
from rejoin.shared.redis_check import Finding, Grade
from rejoin.shared.settings import Settings
from rejoin.shared.settings_file import Quota
from tests.support.quotas import admit
from tests.support.redis_server import free_port

KEY = "sk-secret-0123456789"


async def said(url: str, quotas: dict[str, Quota]) -> list[tuple[str, Grade, str]]:
    return [
        (area, finding.grade, finding.sentence)
        async for area, finding in quota_check.look(url, quotas)
    ]


async def test_the_limits_of_the_headers_are_told_by_model(
    redis: Redis, clean_redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    key = key_of("openai", {"OPENAI_API_KEY": KEY})
    assert await said(clean_redis_url, {}) == []
    limits = RateLimits(Limit(500), Limit(30_000))
    await quota.heard(redis, Scope(key, "m\x1b"), "call", limits)
    ((area, grade, sentence),) = await said(clean_redis_url, {})
    assert (area, grade) == ("quota openai", Grade.OK)
    assert "500 requests a minute, 30000 tokens a minute" in sentence
    assert "\x1b" not in sentence


async def test_the_files_limits_who_waits_and_a_parked_key_are_told(
    redis: Redis, clean_redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    key = key_of("openai", {"OPENAI_API_KEY": KEY})
    quotas = {"openai": Quota(requests_per_minute=1, requests_at_once=4)}
    ((_, _, sentence),) = await said(clean_redis_url, quotas)
    assert sentence == "1 requests a minute, 4 requests at once"
    scope = Scope(key, "", Bounds(1, 0, 4))
    await admit(redis, scope, "a")
    await admit(redis, scope, "b")
    await quota.heard(redis, scope, "a", refused=True, parked_seconds=90)
    (_, grade, pause), (_, _, sentence) = await said(clean_redis_url, quotas)
    assert grade is Grade.WARNING
    assert "another 90 s" in pause
    assert "1 wait for their turn" in sentence


async def test_a_redis_that_is_away_is_told_elsewhere() -> None:
    assert await said(f"redis://127.0.0.1:{free_port()}/0", {"demo": Quota()}) == []


async def test_the_command_reads_the_settings_file(
    clean_redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "rejoin.toml"
    file.write_text("[quota.demo]\nrequests_per_minute = 7\n")

    async def none(url: str) -> AsyncIterator[tuple[str, Finding]]:
        for found in list[tuple[str, Finding]]():
            yield found

    monkeypatch.setattr(process_checks, "processes", none)  # they take their time to start
    settings = Settings(settings_file=file)
    found = [one async for one in doctor._with_redis(clean_redis_url, settings)]
    assert ("quota demo", Finding(Grade.OK, "7 requests a minute")) in found

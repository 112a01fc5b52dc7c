"""The limited provider itself: its windows, its headers, and whom it says met its limits."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from rejoin.shared.errors import ProviderError
from rejoin.shared.events import FailureCode
from rejoin.worker.providers.base import Provider, TextChunk
from rejoin.worker.providers.registry import Providers
from tests.providers.answers import answer, failure
from tests.support.limited_provider import ANSWERED, LimitedProvider
from tests.support.wire_answers import WIRES


class Clock:
    """A clock that a test sets."""

    now = 1000.0

    def __call__(self) -> float:
        """Seconds."""
        return self.now


@asynccontextmanager
async def opened(
    server: LimitedProvider, monkeypatch: pytest.MonkeyPatch, worker: str = "worker-1"
) -> AsyncIterator[Provider]:
    """The adapter as a worker has it."""
    providers = Providers()
    with monkeypatch.context() as patched:
        for name, value in server.environ(worker).items():
            patched.setenv(name, value)
        provider = providers.of(server.wire)
    yield provider
    await providers.aclose()


async def refused(provider: Provider) -> ProviderError:
    """What it refuses a call with: a rate limit."""
    error = await failure(provider)
    assert (error.code, error.status) == (FailureCode.RATE_LIMITED, 429)
    assert error.retryable
    return error


@pytest.mark.parametrize("wire", WIRES)
async def test_it_takes_so_many_requests_and_says_when_to_come_back(
    wire: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        LimitedProvider(wire, requests=2, window_seconds=60) as server,
        opened(server, monkeypatch) as provider,
    ):
        for _ in range(2):
            said = [one.text for one in await answer(provider) if isinstance(one, TextChunk)]
            assert said == [*ANSWERED]
        error = await refused(provider)
        assert 0 < (error.retry_after_seconds or 0) <= 60
    assert [one.worker for one in server.refused] == ["worker-1"]
    assert server.most_refusals_in_a_window() == {"worker-1": 1}
    assert server.most_taken_in_a_window() == 2


@pytest.mark.parametrize(("sliding", "waits"), [(False, 6.5), (True, 9.5)])
async def test_who_comes_back_as_it_was_told_is_taken_and_no_earlier(
    sliding: bool, waits: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    limits: dict[str, Any] = {"requests": 1, "window_seconds": 10, "sliding": sliding}
    async with (
        LimitedProvider(**limits, clock=clock) as server,
        opened(server, monkeypatch) as provider,
    ):
        clock.now += 3
        await answer(provider)
        clock.now += 0.5
        assert (await refused(provider)).retry_after_seconds == pytest.approx(waits)
        clock.now += waits - 0.01
        await refused(provider)
        clock.now += 0.02
        await answer(provider)
    assert server.most_refusals_in_a_window() == {"worker-1": 2}


async def test_a_worker_that_meets_one_refusal_in_each_window_is_told_from_one_that_meets_two(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock()
    async with (
        LimitedProvider(requests=1, window_seconds=10, clock=clock) as server,
        opened(server, monkeypatch, "one") as one,
        opened(server, monkeypatch, "two") as two,
    ):
        for _ in range(2):
            await answer(one)
            await refused(one)
            await refused(two)
            await refused(two)
            clock.now += 10
    assert server.most_refusals_in_a_window() == {"one": 1, "two": 2}


async def test_tokens_of_a_window_are_limited_too(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    async with (
        LimitedProvider(tokens=1500, output_tokens=1000, window_seconds=10, clock=clock) as server,
        opened(server, monkeypatch) as provider,
    ):
        await answer(provider)
        assert (await refused(provider)).retry_after_seconds == 10
        clock.now += 10
        await answer(provider)


async def test_too_many_at_once_are_refused_without_a_word_of_when(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with (
        LimitedProvider(at_once=1, takes_seconds=5) as server,
        opened(server, monkeypatch) as provider,
    ):
        first = asyncio.create_task(answer(provider))
        await server.request()
        assert (await refused(provider)).retry_after_seconds is None
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
    assert server.most_at_once == 1


HEADERS = {
    "openai": {
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": "59",
        "x-ratelimit-reset-requests": "1m30s",
        "x-ratelimit-limit-tokens": "9000",
    },
    "anthropic": {
        "anthropic-ratelimit-requests-limit": "60",
        "anthropic-ratelimit-requests-remaining": "59",
        "anthropic-ratelimit-tokens-limit": "9000",
    },
    "openrouter": {"X-RateLimit-Limit": "60", "X-RateLimit-Remaining": "59"},
    "ollama": {},
}


@pytest.mark.parametrize("wire", WIRES)
async def test_each_answer_tells_the_limits_as_its_provider_does(wire: str) -> None:
    async with (
        LimitedProvider(wire, window_seconds=90, tokens=9000, clock=Clock()) as server,
        httpx.AsyncClient(trust_env=False, timeout=5) as http,
    ):
        headers = (await http.post(server.base_url + "/messages", json={"model": "x"})).headers
    told = {name: headers.get(name) for name in HEADERS[wire]}
    assert told == HEADERS[wire]
    assert bool(HEADERS[wire]) is any("ratelimit" in name for name in headers)

"""Each adapter tells what the headers say of its key's limits, with an answer and a refusal."""

import pytest

from rejoin.shared.errors import ProviderError
from rejoin.shared.rate_limits import Limit
from rejoin.worker.providers.base import Chunk, LimitsChunk, ModelRequest, Provider, TextChunk, Turn
from rejoin.worker.providers.registry import FACTORIES
from tests.support.limited_provider import LimitedProvider

REQUEST = ModelRequest(model="m", turns=[Turn("user", "Hi")])


@pytest.fixture(params=["openai", "anthropic", "openrouter", "ollama"])
def wire(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def opened(server: LimitedProvider, monkeypatch: pytest.MonkeyPatch) -> Provider:
    for name, value in server.environ("w").items():
        monkeypatch.setenv(name, value)
    return FACTORIES[server.wire]()


async def called(provider: Provider) -> list[Chunk]:
    async with provider.stream(REQUEST) as chunks:
        return [chunk async for chunk in chunks]


async def test_limits_come_before_anything_else_and_with_a_429(
    wire: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with LimitedProvider(wire, requests=1, window_seconds=60) as server:
        provider = opened(server, monkeypatch)
        got = await called(provider)
        with pytest.raises(ProviderError) as refused:
            await called(provider)
        await provider.aclose()
    assert refused.value.retry_after_seconds is not None
    if wire == "ollama":  # it has no limits to tell of
        assert not any(isinstance(chunk, LimitsChunk) for chunk in got)
        assert refused.value.limits is None
        return
    first, *others = got
    assert isinstance(first, LimitsChunk)
    assert not any(isinstance(chunk, LimitsChunk) for chunk in others)
    assert any(isinstance(chunk, TextChunk) for chunk in others)
    assert refused.value.limits is not None
    for limits in (first.limits, refused.value.limits):
        assert limits.requests.reset_seconds is not None
        assert limits.requests == Limit(1, 0, limits.requests.reset_seconds)

"""A provider server and the adapters that talk to it."""

from collections.abc import AsyncIterator

import pytest

from rejoin.worker.providers.anthropic import AnthropicProvider
from rejoin.worker.providers.openai import OpenAIProvider
from tests.support.provider_server import ProviderServer

KEY = "a-key-of-no-known-form"


@pytest.fixture
async def server() -> AsyncIterator[ProviderServer]:
    """A server that plays what the test scripts."""
    async with ProviderServer() as server:
        yield server


@pytest.fixture
async def provider(server: ProviderServer) -> AsyncIterator[OpenAIProvider]:
    """The openai adapter, with a key."""
    provider = OpenAIProvider({"OPENAI_BASE_URL": server.base_url, "OPENAI_API_KEY": KEY})
    yield provider
    await provider.aclose()


@pytest.fixture
async def claude(server: ProviderServer) -> AsyncIterator[AnthropicProvider]:
    """The anthropic adapter, with a key."""
    url = server.base_url.removesuffix("/v1")
    provider = AnthropicProvider({"ANTHROPIC_BASE_URL": url, "ANTHROPIC_API_KEY": KEY})
    yield provider
    await provider.aclose()

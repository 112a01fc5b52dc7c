"""A provider server and the openai adapter that talks to it."""

from collections.abc import AsyncIterator

import pytest

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
    """The adapter, with a key."""
    provider = OpenAIProvider({"OPENAI_BASE_URL": server.base_url, "OPENAI_API_KEY": KEY})
    yield provider
    await provider.aclose()

"""The provider server itself: the faults it names by the model, and as a process."""

from collections.abc import AsyncIterator

import httpx
import pytest

from rejoin.shared.events import FailureCode
from rejoin.worker.providers.base import (
    Chunk,
    ModelRequest,
    ReasoningChunk,
    TextChunk,
    Turn,
    UsageChunk,
)
from rejoin.worker.providers.openai import OpenAIProvider
from tests.providers.answers import STOP, answer, ask, failure
from tests.support.provider_script import simulated_text, simulated_words
from tests.support.provider_server import ProviderServer, provider_process


@pytest.fixture
async def server() -> AsyncIterator[ProviderServer]:
    async with ProviderServer() as server:
        yield server


@pytest.fixture
async def provider(server: ProviderServer) -> AsyncIterator[OpenAIProvider]:
    provider = OpenAIProvider({"OPENAI_BASE_URL": server.base_url})
    yield provider
    await provider.aclose()


async def test_a_simulated_answer_has_the_words_asked_for(provider: OpenAIProvider) -> None:
    chunks = await answer(provider, ask("sim?words=30&rate=2000&reasoning=2"))
    assert chunks == [
        *map(ReasoningChunk, ["so0 ", "so1 "]),
        *map(TextChunk, simulated_words(30)),
        STOP,
        UsageChunk(7, 30),
    ]


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ("empty", FailureCode.PROVIDER_PROTOCOL),
        ("html", FailureCode.PROVIDER_PROTOCOL),
        ("context", FailureCode.CONTEXT_LENGTH_EXCEEDED),
        ("401", FailureCode.AUTHENTICATION),
        ("429&retry_after=3", FailureCode.RATE_LIMITED),
        ("500", FailureCode.PROVIDER_UNAVAILABLE),
    ],
)
async def test_a_fault_in_place_of_an_answer(
    provider: OpenAIProvider, fault: str, code: FailureCode
) -> None:
    chunks: list[Chunk] = []
    error = await failure(provider, ask(f"sim?fault={fault}"), chunks)
    assert (error.code, chunks) == (code, [])
    assert error.retry_after_seconds == (3.0 if "retry_after" in fault else None)


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ("eof", FailureCode.PROVIDER_PROTOCOL),
        ("junk", FailureCode.PROVIDER_PROTOCOL),
        ("drop", FailureCode.PROVIDER_UNAVAILABLE),
        ("error", FailureCode.PROVIDER_UNAVAILABLE),
    ],
)
async def test_a_fault_at_a_word(provider: OpenAIProvider, fault: str, code: FailureCode) -> None:
    chunks: list[Chunk] = []
    error = await failure(provider, ask(f"sim?words=9&fault={fault}&at=5"), chunks)
    assert (error.code, chunks) == (code, [*map(TextChunk, simulated_words(5))])


async def test_a_fault_may_pass(provider: OpenAIProvider) -> None:
    request = ask("sim?words=2&fault=eof&times=2")
    for _ in range(2):
        await failure(provider, request)
    assert (await answer(provider, request))[-2] == STOP


async def test_as_a_process_it_answers_and_tells_what_it_was_asked() -> None:
    with provider_process() as base_url:
        provider = OpenAIProvider({"OPENAI_BASE_URL": base_url})
        request = ModelRequest("sim?words=3", [Turn("user", "Hi")], reference="m-1")
        chunks = await answer(provider, request)
        await provider.aclose()
        async with httpx.AsyncClient(trust_env=False) as client:
            told = (await client.get(base_url.removesuffix("/v1") + "/requests")).json()
    text = "".join(chunk.text for chunk in chunks if isinstance(chunk, TextChunk))
    assert text == simulated_text(3)
    assert [(one["reference"], one["answered"], one["disconnected"]) for one in told] == [
        ("m-1", True, False)
    ]
    assert told[0]["body"]["model"] == "sim?words=3"

"""What holds for every adapter alike, against a server that speaks its provider's wire format."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import replace
from typing import NamedTuple

import pytest

from rejoin.shared.errors import ProviderError
from rejoin.shared.events import FailureCode
from rejoin.worker.providers.anthropic import AnthropicProvider
from rejoin.worker.providers.base import (
    Chunk,
    ModelRequest,
    Provider,
    TextChunk,
    Tool,
    ToolCallChunk,
    WorkingChunk,
)
from rejoin.worker.providers.ollama import OllamaProvider
from rejoin.worker.providers.openai import OpenAIProvider
from rejoin.worker.providers.openrouter import OpenRouterProvider
from tests.providers import anthropic_wire as anthropic
from tests.providers.answers import WIRE, ask, collect, failure
from tests.providers.conftest import KEY
from tests.support.provider_script import (
    Answer,
    Drop,
    Hold,
    Part,
    Reset,
    choice,
    completion_chunk,
    sse,
)
from tests.support.provider_server import ProviderServer


class Wire(NamedTuple):
    """Which environment leads to a server, and how that server says "one" and then "two"."""

    adapter: Callable[[Mapping[str, str]], Provider]
    environ: Mapping[str, str]  # ORIGIN stands for the server
    asked: ModelRequest
    one: bytes
    two: bytes

    def made(self, server: ProviderServer) -> Provider:
        """The adapter, told of the server."""
        origin = server.base_url.removesuffix("/v1")
        said = {name: value.replace("ORIGIN", origin) for name, value in self.environ.items()}
        return self.adapter(said)


OPENAI = Wire(
    OpenAIProvider,
    {"OPENAI_BASE_URL": "ORIGIN/v1", "OPENAI_API_KEY": KEY},
    ask(),
    *(sse(completion_chunk("m", choices=choice({"content": said}))) for said in ("one", "two")),
)
OPENROUTER = {"OPENROUTER_BASE_URL": "ORIGIN/v1", "OPENROUTER_API_KEY": KEY}
ANTHROPIC = Wire(
    AnthropicProvider,
    {"ANTHROPIC_BASE_URL": "ORIGIN", "ANTHROPIC_API_KEY": KEY},
    anthropic.ask(),
    anthropic.begin()
    + anthropic.open_block(type="text", text="")
    + anthropic.delta(type="text_delta", text="one"),
    anthropic.delta(type="text_delta", text="two"),
)
WIRES = {
    "anthropic": ANTHROPIC,
    "openai": OPENAI,
    "openrouter": OPENAI._replace(adapter=OpenRouterProvider, environ=OPENROUTER),
    "ollama": OPENAI._replace(adapter=OllamaProvider, environ={"OLLAMA_HOST": "ORIGIN"}),
}
CONFIGURED: dict[str, Callable[[Mapping[str, str]], Provider]] = {  # by the names of their settings
    "ANTHROPIC": AnthropicProvider,
    "OPENAI": OpenAIProvider,
    "OPENROUTER": OpenRouterProvider,
}


@pytest.fixture(params=WIRES)
def wire(request: pytest.FixtureRequest) -> Wire:
    return WIRES[request.param]


@pytest.fixture
async def adapter(server: ProviderServer, wire: Wire) -> AsyncIterator[Provider]:
    made = wire.made(server)
    yield made
    await made.aclose()


async def test_leaving_early_closes_the_connection(
    server: ProviderServer, adapter: Provider, wire: Wire
) -> None:
    server.play(Answer([wire.one, wire.two, Hold()]))
    async with adapter.stream(wire.asked) as chunks:
        assert await anext(chunks) == TextChunk("one")
        request = await server.request()
        assert not request.disconnected.is_set()
    await asyncio.wait_for(request.disconnected.wait(), 5)


@pytest.mark.parametrize("reached", ["before the head", "before the first chunk", "in mid-stream"])
async def test_cancelling_closes_the_connection(
    server: ProviderServer, adapter: Provider, wire: Wire, reached: str
) -> None:
    scripted = {
        "before the head": Answer(silent=True),
        "before the first chunk": Answer([Hold()]),
        "in mid-stream": Answer([wire.one, Hold()]),
    }
    server.play(scripted[reached])
    task = asyncio.create_task(collect(adapter, wire.asked, []))
    request = await server.request()
    task.cancel()
    await asyncio.wait([task], timeout=5)
    assert task.cancelled()
    await asyncio.wait_for(request.disconnected.wait(), 5)


async def test_a_failed_reader_closes_the_connection(
    server: ProviderServer, adapter: Provider, wire: Wire
) -> None:
    server.play(Answer([wire.one, Hold()]))
    with pytest.raises(ZeroDivisionError):
        async with adapter.stream(wire.asked):
            raise ZeroDivisionError
    await asyncio.wait_for((await server.request()).disconnected.wait(), 5)


async def test_no_deadline_of_its_own_ends_a_silent_stream(
    server: ProviderServer, adapter: Provider, wire: Wire
) -> None:
    server.play(Answer([wire.one, Hold()]))
    async with adapter.stream(wire.asked) as chunks:
        await anext(chunks)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(chunks), 0.1)


async def test_no_stream_waits_for_another_to_end(
    server: ProviderServer, adapter: Provider, wire: Wire
) -> None:
    number = 150  # more than an HTTP client allows unless told
    server.play(*(Answer([wire.one, Hold()]) for _ in range(number)))
    tasks = [asyncio.create_task(collect(adapter, wire.asked, [])) for _ in range(number)]
    await server.request(number - 1, within_seconds=20)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


async def test_a_refused_connection_is_retryable(wire: Wire) -> None:
    async with ProviderServer() as server:
        adapter = wire.made(server)
    error = await failure(adapter, wire.asked)
    assert (error.code, error.retryable) == (FailureCode.PROVIDER_UNAVAILABLE, True)
    await adapter.aclose()


async def test_a_request_is_never_sent_twice(
    server: ProviderServer, adapter: Provider, wire: Wire
) -> None:
    server.play(Answer([b"no"], 500))
    error = await failure(adapter, wire.asked)
    assert error.status == 500
    assert len(server.requests) == 1


async def test_an_error_keeps_nothing_that_holds_the_key(
    server: ProviderServer, adapter: Provider, wire: Wire
) -> None:
    said = b'{"type": "error", "error": {"type": "api_error", "message": "Words."}}'
    server.play(Answer([said], 500, content_type="application/json"))
    error: BaseException | None = await failure(adapter, wire.asked)
    assert isinstance(error, ProviderError)
    assert error.__cause__ is None
    assert error.__suppress_context__


@pytest.mark.parametrize("name", CONFIGURED)
def test_neither_key_nor_url_says_how_to_configure_it(name: str) -> None:
    others = {f"{other}_API_KEY": "sk-x" for other in CONFIGURED if other != name}
    with pytest.raises(ProviderError, match=f"set {name}_API_KEY") as caught:
        CONFIGURED[name](others)
    assert (caught.value.code, caught.value.retryable) == (FailureCode.AUTHENTICATION, False)


@pytest.mark.parametrize("name", CONFIGURED)
@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("API_KEY", "sk-schlüssel"),
        ("API_KEY", "sk-two\nlines"),
        ("BASE_URL", "ftp://user:geheim@host"),
        ("BASE_URL", "host"),
        ("BASE_URL", "http://host:geheim"),
    ],
)
def test_settings_that_cannot_work_are_refused_without_repeating_them(
    name: str, setting: str, value: str
) -> None:
    with pytest.raises(ProviderError, match=f"{name}_") as caught:
        CONFIGURED[name]({f"{name}_{setting}": value})
    assert caught.value.code == FailureCode.AUTHENTICATION
    assert not any(part in str(caught.value) for part in ("schl", "two", "geheim"))


# A sample of calls, and what of it is still to come when the connection breaks.
CALLS: dict[object, tuple[str, bytes]] = {
    OpenAIProvider: ("openai_tools", b'"finish_reason":"'),
    OpenRouterProvider: ("openrouter_tools", b'"finish_reason":"'),
    OllamaProvider: ("ollama_tools", b'"finish_reason":"'),
    AnthropicProvider: ("anthropic_tools", "ich 🏔".encode()),
}


@pytest.mark.parametrize("after", [Drop(), Reset()])
async def test_arguments_that_broke_off_are_no_call(
    server: ProviderServer, adapter: Provider, wire: Wire, after: Part
) -> None:
    name, still = CALLS[wire.adapter]
    body = (WIRE / f"{name}.txt").read_bytes()
    server.play(Answer([body[: body.index(still)], after], split=1))
    chunks: list[Chunk] = []
    tools = [Tool("get_weather", "", {"type": "object"})]
    broken = await failure(adapter, replace(wire.asked, tools=tools), chunks)
    assert broken.retryable
    assert WorkingChunk() in chunks
    assert not any(isinstance(chunk, ToolCallChunk) for chunk in chunks)

"""Ollama against a server that speaks its two APIs."""

import json
from collections.abc import AsyncIterator

import pytest

from rejoin.shared.content import FilePart, ImagePart, TextPart
from rejoin.shared.errors import ProviderError
from rejoin.shared.events import FailureCode
from rejoin.shared.request import ResponseFormat
from rejoin.worker.providers import ollama as adapter
from rejoin.worker.providers.base import ListedModel, ModelRequest, Tool, Turn
from rejoin.worker.providers.ollama import OllamaProvider
from rejoin.worker.providers.ollama_host import parse_host
from tests.providers.answers import SAMPLES, TOOL_SAMPLES, WIRE, answer, failure
from tests.support.provider_script import Answer, Hold, choice, error_answer, sse
from tests.support.provider_server import ProviderServer

PNG = "data:image/png;base64,iVBORw0KGgo="
FINISH = sse({"choices": choice({}, "stop")})


@pytest.fixture
async def ollama(server: ProviderServer) -> AsyncIterator[OllamaProvider]:
    """The adapter, told the server as Ollama's users tell it."""
    provider = OllamaProvider({"OLLAMA_HOST": f"0.0.0.0:{server.port}"})
    yield provider
    await provider.aclose()


def answered(value: object) -> Answer:
    return Answer([json.dumps(value).encode()], content_type="application/json")


@pytest.mark.parametrize(
    ("said", "url"),
    [
        ("", "http://127.0.0.1:11434"),
        ("  ", "http://127.0.0.1:11434"),
        ("gpu", "http://gpu:11434"),
        ("gpu:1234", "http://gpu:1234"),
        (":1234", "http://127.0.0.1:1234"),
        ("0.0.0.0", "http://127.0.0.1:11434"),
        ("0.0.0.0:1234", "http://127.0.0.1:1234"),
        ("http://0.0.0.0:1234/", "http://127.0.0.1:1234"),
        ("http://gpu", "http://gpu:80"),
        ("https://gpu.example.org", "https://gpu.example.org:443"),
        ("https://gpu.example.org/ollama/", "https://gpu.example.org:443/ollama"),
        ("gpu:1234/a/b", "http://gpu:1234/a/b"),
        ("HTTP://gpu", "http://gpu:80"),
        ("http://", "http://127.0.0.1:80"),
        ("[::1]:1234", "http://[::1]:1234"),
        ("[::]:1234", "http://[::1]:1234"),
        ("::1", "http://[::1]:11434"),
        ("::", "http://[::1]:11434"),
        ("[fe80::1]", "http://[fe80::1]:11434"),
        ('"gpu:1234"', "http://gpu:1234"),
        (" 'gpu' ", "http://gpu:11434"),
    ],
)
def test_the_host_is_read_as_ollama_reads_it(said: str, url: str) -> None:
    assert parse_host(said)[0] == url


@pytest.mark.parametrize(
    "said",
    [
        "gpu:port", "gpu:99999", "ftp://gpu", "http://a b", "gpu:1:2", "user:geheim@gpu:1",
        "gpu\n:1", "gpu/a?b=c", "gpu/ä", "[::1", "gpu]",
    ],
)  # fmt: skip
def test_a_host_that_is_none_is_refused_without_repeating_it(said: str) -> None:
    with pytest.raises(ProviderError, match="OLLAMA_HOST has the form") as caught:
        OllamaProvider({"OLLAMA_HOST": said})
    assert caught.value.code == FailureCode.AUTHENTICATION
    assert "geheim" not in str(caught.value)


@pytest.mark.parametrize("split", [0, 1, 7])
async def test_its_stream_is_read(
    server: ProviderServer, ollama: OllamaProvider, split: int
) -> None:
    bodies = [(WIRE / f"{name}.txt").read_bytes() for name in ("ollama", "ollama_tools")]
    server.play(*(Answer([body], split=split) for body in bodies))
    assert await answer(ollama) == SAMPLES["ollama"]
    asked = ModelRequest("m", [Turn("user", "Hi")], tools=[Tool("get_weather", "", {})])
    assert await answer(ollama, asked) == TOOL_SAMPLES["ollama_tools"]


async def test_a_request_goes_to_its_v1_without_a_key_of_anybodys(
    server: ProviderServer, ollama: OllamaProvider
) -> None:
    server.play(Answer([FINISH]))
    wanted = ResponseFormat("a", {"type": "object"})
    request = ModelRequest(
        "llama3.2:1b",
        [Turn("user", (TextPart("Hi"), ImagePart(PNG)))],
        response_format=wanted,
        reasoning_effort="low",
    )
    await answer(ollama, request)
    received = await server.request()
    assert received.path == "/v1/chat/completions"
    assert received.headers["authorization"] == "Bearer none"
    schema = {"name": "a", "schema": {"type": "object"}}
    assert received.json == {
        "model": "llama3.2:1b",
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "Hi"},
                    {"type": "image_url", "image_url": {"url": PNG}},
                ],
            }
        ],
        "reasoning_effort": "low",
        "response_format": {"type": "json_schema", "json_schema": schema},
        "stream": True,
        "stream_options": {"include_usage": True},
    }


async def test_a_file_of_text_is_sent_as_text(
    server: ProviderServer, ollama: OllamaProvider
) -> None:
    server.play(Answer([FINISH]))
    file = FilePart("a.txt", "data:text/plain;charset=utf-8;base64,R3LDvMOfZQ==")
    await answer(ollama, ModelRequest("m", [Turn("user", (file,))]))
    sent = [{"role": "user", "content": [{"type": "text", "text": "a.txt:\nGrüße"}]}]
    assert (await server.request()).json["messages"] == sent


@pytest.mark.parametrize(
    "part",
    [
        ImagePart("https://example.org/a.png"),
        FilePart("a.pdf", "data:application/pdf;base64,JVBERi0="),
        FilePart("a.txt", "data:text/plain,hello"),
        FilePart("a.txt", "data:text/plain;base64,x"),
    ],
)
async def test_a_part_that_it_cannot_take_is_refused_and_not_dropped(
    server: ProviderServer, ollama: OllamaProvider, part: ImagePart | FilePart
) -> None:
    error = await failure(ollama, ModelRequest("m", [Turn("user", (part,))]))
    assert (error.code, error.retryable) == (FailureCode.INVALID_REQUEST, False)
    assert server.requests == []


async def test_a_model_that_is_not_there_is_an_invalid_request(
    server: ProviderServer, ollama: OllamaProvider
) -> None:
    said = 'model "nope" not found, try pulling it first'
    server.play(error_answer(404, said, type="not_found_error"))
    error = await failure(ollama)
    assert (error.code, error.status) == (FailureCode.INVALID_REQUEST, 404)
    assert "try pulling it first" in str(error)


TAGS = {
    "models": [
        {"name": f"{name}", "model": f"{name}", "size": 1, "details": {"family": "llama"}}
        for name in ("llama3.2:latest", "qwen3:8b", "nomic-embed-text:latest", "old:latest")
    ]
}
SHOWN: dict[str, object] = {
    "llama3.2": {
        "capabilities": ["completion", "tools"],
        "model_info": {"general.architecture": "llama", "llama.context_length": 131_072},
    },
    "qwen3:8b": {
        "parameters": 'num_ctx                        16384\nstop       "<|im_end|>"',
        "capabilities": ["completion", "tools", "thinking", "vision"],
        "model_info": {"qwen3.context_length": 40_960},
    },
    "nomic-embed-text": {"capabilities": ["embedding"]},
    "old": {"license": "…"},
}


class Shelf(ProviderServer):
    """Answers for its models by their names, in whatever order they are asked for."""

    silent: frozenset[str] = frozenset()

    async def next_answer(self, request: object) -> Answer:
        path, name = getattr(request, "path", ""), ""
        if path == "/api/tags":
            return answered(TAGS)
        assert path == "/api/show"
        name = str(getattr(request, "json", {})["model"])
        return Answer([Hold()]) if name in self.silent else answered(SHOWN[name])


FIRST = ListedModel("llama3.2", 131_072, capabilities=frozenset({"tools", "json_schema"}))
EVERY = frozenset({"tools", "vision", "json_schema", "reasoning"})


async def test_its_models_are_those_of_its_tags_with_what_each_can() -> None:
    async with Shelf() as shelf:
        ollama = OllamaProvider({"OLLAMA_HOST": f"http://127.0.0.1:{shelf.port}"})
        assert await ollama.models() == [
            FIRST,
            ListedModel("qwen3:8b", 16_384, capabilities=EVERY),
            ListedModel("old"),
        ]
        await ollama.aclose()


async def test_a_model_that_it_does_not_show_in_time_is_listed_by_its_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(adapter, "SHOW_SECONDS", 0.3)
    async with Shelf() as shelf:
        shelf.silent = frozenset({"qwen3:8b"})
        ollama = OllamaProvider({"OLLAMA_HOST": f"127.0.0.1:{shelf.port}"})
        listed = await ollama.models()
        assert ListedModel("qwen3:8b") in listed
        assert FIRST in listed
        await ollama.aclose()

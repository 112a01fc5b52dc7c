"""The openai adapter against a server that speaks the real wire format."""

import asyncio
from collections.abc import Sequence

import pytest

from rejoin.shared.errors import ProviderError
from rejoin.shared.events import FailureCode
from rejoin.worker.providers.base import (
    Chunk,
    ModelRequest,
    TextChunk,
    Turn,
    UsageChunk,
)
from rejoin.worker.providers.openai import OpenAIProvider, is_openais_own
from tests.providers.answers import SAMPLES, STOP, WIRE, answer, ask, failure
from tests.providers.conftest import KEY
from tests.support.provider_script import (
    Answer,
    Drop,
    Hold,
    Part,
    Reset,
    choice,
    completion_chunk,
    simulated_text,
    sse,
)
from tests.support.provider_server import ProviderServer


def text(content: str) -> bytes:
    return sse(completion_chunk("m", choices=choice({"content": content})))


def finish(reason: str = "stop") -> bytes:
    return sse(completion_chunk("m", choices=choice({}, reason)))


@pytest.mark.parametrize("split", [0, 1, 7])
@pytest.mark.parametrize("name", SAMPLES)
async def test_each_providers_stream_is_read(
    server: ProviderServer, provider: OpenAIProvider, name: str, split: int
) -> None:
    server.play(Answer([(WIRE / f"{name}.txt").read_bytes()], split=split))
    assert await answer(provider) == SAMPLES[name]


async def test_a_request_holds_what_was_asked_and_nothing_else(
    server: ProviderServer, provider: OpenAIProvider
) -> None:
    server.play(Answer([finish()]))
    await answer(
        provider, ModelRequest("a/b:free", [Turn("system", "Be kind."), Turn("user", "é")])
    )
    request = await server.request()
    assert request.path == "/v1/chat/completions"
    assert request.json == {
        "model": "a/b:free",
        "messages": [
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": "é"},
        ],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert "x-client-request-id" not in request.headers


async def test_a_request_holds_every_option_that_is_set(
    server: ProviderServer, provider: OpenAIProvider
) -> None:
    server.play(Answer([finish()]))
    options = ModelRequest(
        "m",
        [Turn("user", "Hi")],
        temperature=0.0,
        top_p=0.5,
        max_tokens=7,
        stop=("END", "\n"),
        reasoning_effort="low",
        reference="018f-1",
    )
    await answer(provider, options)
    request = await server.request()
    sent = request.json
    names = ("temperature", "top_p", "max_tokens", "stop", "reasoning_effort")
    assert [sent[name] for name in names] == [0.0, 0.5, 7, ["END", "\n"], "low"]
    assert "max_completion_tokens" not in sent
    assert request.headers["x-client-request-id"] == "018f-1"


@pytest.mark.parametrize(
    ("host", "new"),
    [
        ("api.openai.com", True),
        ("eu.api.openai.com", True),
        ("mine.openai.azure.com", True),
        ("openrouter.ai", False),
        ("127.0.0.1", False),
        ("notapi.openai.com.example.org", False),
        ("evilapi.openai.com", False),
    ],
)
def test_only_openai_itself_gets_the_new_limit(host: str, new: bool) -> None:
    assert is_openais_own(host) is new


async def test_a_server_without_keys_is_called_with_a_placeholder(server: ProviderServer) -> None:
    provider = OpenAIProvider({"OPENAI_BASE_URL": server.base_url, "OPENAI_API_KEY": " "})
    server.play(Answer([finish()]))
    assert await answer(provider) == [STOP]
    assert (await server.request()).headers["authorization"] == "Bearer none"
    await provider.aclose()


async def test_half_a_surrogate_pair_in_the_request_is_refused(provider: OpenAIProvider) -> None:
    with pytest.raises(ProviderError) as caught:
        await answer(provider, ModelRequest("m", [Turn("user", "\ud83d")]))
    assert caught.value.code == FailureCode.INVALID_REQUEST


async def test_halves_of_a_surrogate_pair_are_passed_on(
    server: ProviderServer, provider: OpenAIProvider
) -> None:
    halves = [text("X").replace(b"X", half) for half in (rb"a\ud83d", rb"\ude00b")]
    server.play(Answer([*halves, finish()]))
    assert await answer(provider) == [TextChunk("a\ud83d"), TextChunk("\ude00b"), STOP]


async def test_usage_that_comes_after_the_finish_is_delivered(
    server: ProviderServer, provider: OpenAIProvider
) -> None:
    usage = sse(completion_chunk("m", usage={"prompt_tokens": 3, "completion_tokens": 4}))
    server.play(Answer([finish(), usage, sse("[DONE]")]))
    assert await answer(provider) == [STOP, UsageChunk(3, 4)]


@pytest.mark.parametrize("tail", [[sse("[DONE]")], []], ids=["with [DONE]", "without"])
async def test_a_finished_answer_leaves_its_connection_to_the_next(
    server: ProviderServer, provider: OpenAIProvider, tail: Sequence[Part]
) -> None:
    server.play(*(Answer([text(word), finish(), *tail]) for word in "ab"))
    assert await answer(provider) == [TextChunk("a"), STOP]
    assert await answer(provider) == [TextChunk("b"), STOP]
    assert server.connections == 1


async def test_done_ends_the_answer_though_the_body_goes_on(
    server: ProviderServer, provider: OpenAIProvider
) -> None:
    server.play(Answer([text("a"), finish(), sse("[DONE]"), text("more"), Hold()]))
    assert await answer(provider) == [TextChunk("a"), STOP]


async def test_many_streams_at_once_keep_to_themselves(
    server: ProviderServer, provider: OpenAIProvider
) -> None:
    answers = await asyncio.gather(
        *(answer(provider, ask(f"sim?words={n}&split=50")) for n in range(1, 41))
    )
    for n, chunks in enumerate(answers, 1):
        said = "".join(chunk.text for chunk in chunks if isinstance(chunk, TextChunk))
        assert said == simulated_text(n)
        assert chunks[-2:] == [STOP, UsageChunk(7, n)]


@pytest.mark.parametrize(
    ("tail", "code"),
    [
        ([], FailureCode.PROVIDER_PROTOCOL),
        ([sse("[DONE]")], FailureCode.PROVIDER_PROTOCOL),
        ([b'data: {"choices":[{"index":0,"delta":{"content":"cu'], FailureCode.PROVIDER_PROTOCOL),
        ([sse("{not json")], FailureCode.PROVIDER_PROTOCOL),
        ([b"data: " + b"[" * 100_000 + b"\n\n"], FailureCode.PROVIDER_PROTOCOL),
        ([sse("[]")], FailureCode.PROVIDER_PROTOCOL),
        ([sse({"choices": ["x"]})], FailureCode.PROVIDER_PROTOCOL),
        ([b"<html>504</html>\n"], FailureCode.PROVIDER_PROTOCOL),
        ([finish("tool_calls")], FailureCode.PROVIDER_PROTOCOL),
        ([finish("insufficient_system_resource")], FailureCode.PROVIDER_UNAVAILABLE),
        ([Drop()], FailureCode.PROVIDER_UNAVAILABLE),
        ([Reset()], FailureCode.PROVIDER_UNAVAILABLE),
        (
            [sse({"error": {"message": "x", "type": "server_error"}})],
            FailureCode.PROVIDER_UNAVAILABLE,
        ),
        ([sse({"error": "overloaded"})], FailureCode.PROVIDER_UNAVAILABLE),
        ([sse({"object": "error", "message": "x", "code": 503})], FailureCode.PROVIDER_UNAVAILABLE),
    ],
)
async def test_a_stream_that_breaks_is_an_error_and_never_an_end(
    server: ProviderServer, provider: OpenAIProvider, tail: Sequence[Part], code: FailureCode
) -> None:
    server.play(Answer([text("one"), text("two"), *tail]))
    chunks: list[Chunk] = []
    error = await failure(provider, into=chunks)
    assert (error.code, error.retryable) == (code, True)
    if Reset() not in tail:  # which may overtake what was sent before it
        assert chunks == [TextChunk("one"), TextChunk("two")]


async def test_text_is_delivered_before_the_error_that_came_with_it(
    server: ProviderServer, provider: OpenAIProvider
) -> None:
    server.play(Answer([(WIRE / "openrouter_error.txt").read_bytes()]))
    chunks: list[Chunk] = []
    error = await failure(provider, into=chunks)
    assert chunks == [TextChunk("Once"), TextChunk(" upon")]
    assert (error.code, error.status) == (FailureCode.PROVIDER_UNAVAILABLE, 502)
    assert "Provider disconnected unexpectedly" in str(error)


@pytest.mark.parametrize("tail", [Drop(), b'data: {"usage":{"prompt_to'], ids=["dropped", "torn"])
async def test_a_break_after_the_finish_costs_only_the_usage(
    server: ProviderServer, provider: OpenAIProvider, tail: Part
) -> None:
    server.play(Answer([text("all"), finish(), tail]))
    assert await answer(provider) == [TextChunk("all"), STOP]


@pytest.mark.parametrize(
    ("scripted", "code", "words"),
    [
        (Answer(), FailureCode.PROVIDER_PROTOCOL, "without a finish reason"),
        (Answer([b"<html>Hello</html>"], content_type="text/html"), None, "no event stream"),
        (Answer([b'{"choices":[]}'], content_type="application/json"), None, "not a stream"),
        (
            Answer([b'{"error":{"message":"no","code":401}}'], content_type="application/json"),
            FailureCode.AUTHENTICATION,
            "no",
        ),
    ],
    ids=["empty", "HTML", "JSON", "an error under status 200"],
)
async def test_a_200_that_is_no_stream_is_an_error(
    server: ProviderServer,
    provider: OpenAIProvider,
    scripted: Answer,
    code: FailureCode | None,
    words: str,
) -> None:
    server.play(scripted)
    error = await failure(provider)
    assert error.code == (code or FailureCode.PROVIDER_PROTOCOL)
    assert words in str(error)

"""The anthropic adapter against a server that speaks the real wire format."""

import asyncio
import json
from collections.abc import Sequence

import pytest

from rejoin.shared.errors import ProviderError
from rejoin.shared.events import FailureCode
from rejoin.worker.providers.anthropic import MOST_PAUSES, AnthropicProvider
from rejoin.worker.providers.base import (
    Chunk,
    ListedModel,
    ModelRequest,
    ReasoningChunk,
    TextChunk,
    ThinkingChunk,
    Tool,
    Turn,
    UsageChunk,
    WorkingChunk,
)
from tests.providers.answers import STOP, WIRE, answer, failure
from tests.providers.anthropic_wire import (
    END,
    MODEL,
    SAMPLES,
    ask,
    begin,
    delta,
    error,
    open_block,
    stop,
    text,
)
from tests.providers.conftest import KEY
from tests.support.provider_script import Answer, Drop, Hold, Part, Reset
from tests.support.provider_server import ProviderServer

NOW = Tool("now", "The time.", {"type": "object", "properties": {}})
WITH_TOOLS = ModelRequest(MODEL, [Turn("user", "Hi")], tools=[NOW])
ONE = begin() + open_block(type="text", text="") + delta(type="text_delta", text="one")


@pytest.mark.parametrize("split", [0, 1, 7])
@pytest.mark.parametrize("name", SAMPLES)
async def test_each_sample_is_read(
    server: ProviderServer, claude: AnthropicProvider, name: str, split: int
) -> None:
    server.play(Answer([(WIRE / f"{name}.txt").read_bytes()], split=split))
    assert await answer(claude, WITH_TOOLS) == SAMPLES[name]


async def test_a_turn_that_is_paused_is_sent_back_and_gone_on_with(
    server: ProviderServer, claude: AnthropicProvider
) -> None:
    paused = (WIRE / "anthropic_pause.txt").read_bytes()
    last = begin(input_tokens=90) + text("Found.") + stop(output_tokens=12)
    server.play(Answer([paused]), Answer([last]))
    thought = {"type": "thinking", "thinking": "Look it up.", "signature": "SigA=="}
    chunks = await answer(claude, WITH_TOOLS)
    assert [chunk for chunk in chunks[:-2] if not isinstance(chunk, UsageChunk)] == [
        ReasoningChunk("Look it up."),
        ThinkingChunk(thought),
        TextChunk("Searching. "),
        WorkingChunk(),
        WorkingChunk(),
        TextChunk("Found."),
    ]
    assert chunks[-2:] == [UsageChunk(150, 42, 0, 10), STOP]
    first, second = [(await server.request(n)).json for n in (0, 1)]
    said = second["messages"]
    assert isinstance(said, list)
    assert second | {"messages": said[:-1]} == first
    assert said[-1] == {
        "role": "assistant",
        "content": [
            thought,
            {"type": "text", "text": "Searching. "},
            {
                "type": "server_tool_use",
                "id": "srvtoolu_1",
                "name": "web_search",
                "input": {"query": "rejoin"},
            },
            {
                "type": "web_search_tool_result",
                "tool_use_id": "srvtoolu_1",
                "content": [
                    {
                        "type": "web_search_result",
                        "title": "Rejoin",
                        "url": "https://example.org/",
                        "encrypted_content": "EpA==",
                        "page_age": None,
                    }
                ],
            },
        ],
    }


async def test_a_second_pause_sends_back_all_that_was_said(
    server: ProviderServer, claude: AnthropicProvider
) -> None:
    paused = [begin() + text(word) + stop("pause_turn") for word in "ab"]
    server.play(*(Answer([body]) for body in paused), Answer([begin() + text("c") + END]))
    assert await answer(claude, ask()) == [*map(TextChunk, "abc"), UsageChunk(), STOP]
    messages = (await server.request(2)).json["messages"]
    assert isinstance(messages, list)
    assert messages[1]["content"] == [{"type": "text", "text": word} for word in "ab"]
    assert len(messages) == 2


async def test_pauses_without_an_end_are_an_error(
    server: ProviderServer, claude: AnthropicProvider
) -> None:
    server.play(*(Answer([begin() + text("a") + stop("pause_turn")]) for _ in range(99)))
    caught = await failure(claude, ask())
    assert (caught.code, caught.retryable) == (FailureCode.PROVIDER_PROTOCOL, False)
    assert len(server.requests) == MOST_PAUSES + 1


async def test_a_break_after_a_pause_is_an_error_and_tells_what_was_used_before_it(
    server: ProviderServer, claude: AnthropicProvider
) -> None:
    paused = begin(input_tokens=3) + text("a") + stop("pause_turn", output_tokens=4)
    server.play(Answer([paused]), Answer([ONE, Drop()]))
    chunks: list[Chunk] = []
    caught = await failure(claude, ask(), chunks)
    assert (caught.code, caught.retryable) == (FailureCode.PROVIDER_UNAVAILABLE, True)
    first, paused_with = UsageChunk(3), UsageChunk(3, 4)
    assert chunks == [first, TextChunk("a"), paused_with, TextChunk("one")]


async def test_a_refusal_after_a_pause_is_an_error(
    server: ProviderServer, claude: AnthropicProvider
) -> None:
    server.play(Answer([begin() + stop("pause_turn")]), Answer([b"no"], 529))
    assert (await failure(claude, ask())).status == 529


async def test_leaving_after_a_pause_closes_the_connection(
    server: ProviderServer, claude: AnthropicProvider
) -> None:
    server.play(Answer([begin() + stop("pause_turn")]), Answer([ONE, Hold()]))
    async with claude.stream(ask()) as chunks:
        assert await anext(chunks) == TextChunk("one")
        request = await server.request(1)
        assert not request.disconnected.is_set()
    await asyncio.wait_for(request.disconnected.wait(), 5)


async def test_a_finished_answer_leaves_its_connection_to_the_next(
    server: ProviderServer, claude: AnthropicProvider
) -> None:
    server.play(*(Answer([begin() + text(word) + END]) for word in "ab"))
    assert await answer(claude, ask()) == [TextChunk("a"), UsageChunk(), STOP]
    assert await answer(claude, ask()) == [TextChunk("b"), UsageChunk(), STOP]
    assert server.connections == 1


async def test_the_message_stop_ends_the_answer_though_the_body_goes_on(
    server: ProviderServer, claude: AnthropicProvider
) -> None:
    server.play(Answer([begin() + text("a") + END, text("more"), Hold()]))
    assert await answer(claude, ask()) == [TextChunk("a"), UsageChunk(), STOP]


@pytest.mark.parametrize(
    ("tail", "code"),
    [
        ([], FailureCode.PROVIDER_PROTOCOL),
        ([b'data: {"type": "content_block_delta", "ind'], FailureCode.PROVIDER_PROTOCOL),
        ([b"data: {not json\n\n"], FailureCode.PROVIDER_PROTOCOL),
        ([b"<html>504</html>\n"], FailureCode.PROVIDER_PROTOCOL),
        ([stop(None)], FailureCode.PROVIDER_PROTOCOL),
        ([END.split(b"event: message_stop")[0]], FailureCode.PROVIDER_PROTOCOL),
        ([Drop()], FailureCode.PROVIDER_UNAVAILABLE),
        ([Reset()], FailureCode.PROVIDER_UNAVAILABLE),
        ([error("api_error")], FailureCode.PROVIDER_UNAVAILABLE),
        ([error("rate_limit_error")], FailureCode.RATE_LIMITED),
    ],
)
async def test_a_stream_that_breaks_is_an_error_and_never_an_end(
    server: ProviderServer, claude: AnthropicProvider, tail: Sequence[Part], code: FailureCode
) -> None:
    server.play(Answer([ONE, *tail]))
    chunks: list[Chunk] = []
    caught = await failure(claude, ask(), chunks)
    assert (caught.code, caught.retryable) == (code, True)
    if Reset() not in tail:  # which may overtake what was sent before it
        assert chunks[0] == TextChunk("one")
    assert STOP not in chunks


async def test_text_is_delivered_before_the_error_that_came_with_it(
    server: ProviderServer, claude: AnthropicProvider
) -> None:
    server.play(Answer([(WIRE / "anthropic_error.txt").read_bytes()]))
    chunks: list[Chunk] = []
    caught = await failure(claude, ask(), chunks)
    assert chunks[1:] == [TextChunk("Once"), TextChunk(" upon")]
    assert (caught.code, caught.retryable) == (FailureCode.PROVIDER_UNAVAILABLE, True)
    assert "Overloaded" in str(caught)


@pytest.mark.parametrize(
    ("scripted", "code", "words"),
    [
        (Answer(), FailureCode.PROVIDER_PROTOCOL, "without its message_stop"),
        (Answer([b"<html>Hello</html>"], content_type="text/html"), None, "no event stream"),
        (Answer([b'{"type":"message"}'], content_type="application/json"), None, "not a stream"),
        (
            Answer(
                [b'{"type":"error","error":{"type":"authentication_error","message":"no"}}'],
                content_type="application/json",
            ),
            FailureCode.AUTHENTICATION,
            "no",
        ),
    ],
    ids=["empty", "HTML", "JSON", "an error under status 200"],
)
async def test_a_200_that_is_no_stream_is_an_error(
    server: ProviderServer,
    claude: AnthropicProvider,
    scripted: Answer,
    code: FailureCode | None,
    words: str,
) -> None:
    server.play(scripted)
    caught = await failure(claude, ask())
    assert caught.code == (code or FailureCode.PROVIDER_PROTOCOL)
    assert words in str(caught)


async def test_the_environments_other_credentials_are_never_sent(
    server: ProviderServer, claude: AnthropicProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The SDK itself would take a token or a profile from there."""
    monkeypatch.setenv("ANTHROPIC_AUTH_TOKEN", "of-somebody-else")
    url = server.base_url.removesuffix("/v1")
    keyless = AnthropicProvider({"ANTHROPIC_BASE_URL": url})
    server.play(*(Answer([begin() + END]) for _ in range(2)))
    for provider in (claude, keyless):
        await answer(provider, ask())
    sent = [(await server.request(n)).headers for n in (0, 1)]
    assert KEY in str(sent[0])
    assert "of-somebody-else" not in str(sent)
    await keyless.aclose()


def _page(*names: str, more: bool, **members: object) -> Answer:
    data = [{"type": "model", "id": name, "display_name": name, **members} for name in names]
    page = {"data": data, "has_more": more, "first_id": names[0], "last_id": names[-1]}
    return Answer([json.dumps(page).encode()], content_type="application/json")


def _can(**capabilities: bool) -> dict[str, object]:
    return {name: {"supported": supported} for name, supported in capabilities.items()}


async def test_every_page_of_the_list_is_read(
    server: ProviderServer, claude: AnthropicProvider
) -> None:
    able = _can(image_input=True, structured_outputs=True, thinking=True)
    limits = {"max_input_tokens": 1_000_000, "max_tokens": 128_000}
    server.play(
        _page("a", more=True, capabilities=able, **limits),
        _page("b", more=False, capabilities=_can(image_input=False, thinking=False)),
    )
    every = frozenset({"tools", "vision", "json_schema", "reasoning"})
    assert await claude.models() == [
        ListedModel("a", 1_000_000, 128_000, every),
        ListedModel("b", None, None, frozenset({"tools"})),
    ]
    paths = [request.path for request in server.requests]
    assert paths == ["/v1/models?limit=1000", "/v1/models?after_id=a&limit=1000"]


async def test_a_list_that_tells_only_names_is_taken(
    server: ProviderServer, claude: AnthropicProvider
) -> None:
    server.play(
        Answer(
            [b'{"data": [{"id": "a"}, {"id": 1}, 2], "has_more": null}'],
            content_type="application/json",
        )
    )
    assert await claude.models() == [ListedModel("a")]


@pytest.mark.parametrize(
    ("scripted", "code"),
    [
        (Answer([b"no"], 401), FailureCode.AUTHENTICATION),
        (Answer([b"<html></html>"], content_type="text/html"), FailureCode.PROVIDER_PROTOCOL),
        (Answer([b"[]"], content_type="application/json"), FailureCode.PROVIDER_PROTOCOL),
        (Answer([b'{"data": 1}'], content_type="application/json"), FailureCode.PROVIDER_PROTOCOL),
    ],
)
async def test_a_list_that_cannot_be_had_is_an_error(
    server: ProviderServer, claude: AnthropicProvider, scripted: Answer, code: FailureCode
) -> None:
    server.play(scripted)
    with pytest.raises(ProviderError) as caught:
        await claude.models()
    assert caught.value.code == code

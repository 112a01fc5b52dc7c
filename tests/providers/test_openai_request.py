"""What the openai family sends: parts, tools, calls and their results, formats."""

import json
from collections.abc import Sequence
from typing import Any

import pytest

from rejoin.shared.content import FilePart, ImagePart, TextPart
from rejoin.shared.events import FailureCode
from rejoin.shared.request import ResponseFormat
from rejoin.worker.providers.base import ModelRequest, Tool, ToolCall, Turn
from rejoin.worker.providers.openai import OpenAIProvider
from rejoin.worker.providers.openai_request import body
from tests.providers.answers import STOP, answer, failure
from tests.support.provider_script import Answer, choice, error_answer, sse
from tests.support.provider_server import ProviderServer

SCHEMA: dict[str, object] = {"type": "object", "properties": {"a": {"type": "integer"}}}
CALL = ToolCall("call_1", "weather", {"city": "Köln"})
PDF = "data:application/pdf;base64,JVBERi0="


def messages(turns: Sequence[Turn]) -> object:
    return body(ModelRequest("m", turns))["messages"]


def test_parts_are_sent_in_openais_own_shape() -> None:
    parts = (TextPart("What?"), ImagePart("https://example.org/a.png"), FilePart("a.pdf", PDF))
    assert messages([Turn("user", parts)]) == [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What?"},
                {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}},
                {"type": "file", "file": {"filename": "a.pdf", "file_data": PDF}},
            ],
        }
    ]


def test_a_file_of_text_is_sent_as_text_for_the_api_takes_no_file_but_a_pdf() -> None:
    file = FilePart("a.md", "data:text/markdown;charset=utf-8;base64,IyDDnA==")
    said = {"type": "text", "text": "a.md:\n# Ü"}
    assert messages([Turn("user", (file,))]) == [{"role": "user", "content": [said]}]


def test_a_call_goes_back_with_its_result() -> None:
    turns = [
        Turn("assistant", "Wait.", tool_calls=[CALL]),
        Turn("tool", "rain", tool_call_id="call_1"),
    ]
    function = {"name": "weather", "arguments": '{"city":"Köln"}'}
    assert messages(turns) == [
        {
            "role": "assistant",
            "content": "Wait.",
            "tool_calls": [{"id": "call_1", "type": "function", "function": function}],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": "rain"},
    ]


def test_a_turn_of_calls_alone_has_no_content() -> None:
    sent = json.dumps(messages([Turn("assistant", "", tool_calls=[CALL])]))
    assert json.loads(sent)[0]["content"] is None


def test_a_format_is_sent_as_a_json_schema() -> None:
    wanted = ResponseFormat("answer", SCHEMA)
    sent = body(ModelRequest("m", [], response_format=wanted))["response_format"]
    assert sent == {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA}}


def test_a_format_is_sent_with_all_that_it_says() -> None:
    wanted = ResponseFormat("answer", SCHEMA, description="A number.", strict=True)
    sent = body(ModelRequest("m", [], response_format=wanted))["response_format"]
    schema = {"name": "answer", "schema": SCHEMA, "description": "A number.", "strict": True}
    assert sent == {"type": "json_schema", "json_schema": schema}


def test_no_tools_are_not_an_empty_list_of_them() -> None:
    assert "tools" not in body(ModelRequest("m", []))


async def test_the_sdk_passes_on_all_of_it(
    server: ProviderServer, provider: OpenAIProvider
) -> None:
    server.play(Answer([sse({"choices": choice({}, "stop")})]))
    request = ModelRequest(
        "m",
        [
            Turn("user", (TextPart("Hi"), FilePart("a.pdf", PDF))),
            Turn("assistant", "", tool_calls=[CALL]),
            Turn("tool", "rain", tool_call_id="call_1", is_error=True),
        ],
        tools=[Tool("weather", "", SCHEMA), Tool("now", "The time.", {"type": "object"})],
        response_format=ResponseFormat("answer", SCHEMA, strict=False),
        max_tokens=0,
    )
    await answer(provider, request)
    sent = (await server.request()).json
    assert sent == json.loads(json.dumps({**body(request), "stream": True}))
    assert sent["tools"] == [
        {"type": "function", "function": {"name": "weather", "parameters": SCHEMA}},
        {
            "type": "function",
            "function": {
                "name": "now",
                "description": "The time.",
                "parameters": {"type": "object"},
            },
        },
    ]


HI = Turn("user", "Hi")
LONG = ToolCall("call_" + "x" * 50, "weather", {})


@pytest.mark.parametrize(
    ("url", "most"), [("https://api.openai.com/v1", 40), ("http://127.0.0.1:1/v1", 64)]
)
def test_a_call_keeps_its_id_as_far_as_the_server_takes_it(url: str, most: int) -> None:
    other = ToolCall(LONG.tool_call_id + "y", "weather", {})
    turns = [
        HI,
        Turn("assistant", "", [LONG, other]),
        *(Turn("tool", "x", tool_call_id=call.tool_call_id) for call in (LONG, other)),
    ]
    provider = OpenAIProvider({"OPENAI_BASE_URL": url})
    sent: Any = provider.body(ModelRequest("m", turns))["messages"]
    ids = [call["id"] for call in sent[1]["tool_calls"]]
    assert len(set(ids)) == 2
    assert all(len(call_id) <= most for call_id in ids)
    assert (ids[0] == LONG.tool_call_id) is (most == 64)
    assert [message["tool_call_id"] for message in sent[2:]] == ids


ORDERS = [
    "Conversation roles must alternate user/assistant/user/assistant/...",
    "Unexpected role 'user' after role 'tool'",
    "System message must be at the beginning.",
]


@pytest.mark.parametrize("status", [400, 500])
@pytest.mark.parametrize("words", ORDERS)
async def test_a_model_that_insists_on_the_order_of_roles_gets_it_from_then_on(
    server: ProviderServer, provider: OpenAIProvider, words: str, status: int
) -> None:
    done = Answer([sse({"choices": choice({}, "stop")})])
    server.play(error_answer(status, words), done, done, done)
    for model in ("strict", "strict", "other"):
        assert await answer(provider, ModelRequest(model, [HI, HI])) == [STOP]
    sent: Any = [request.json["messages"] for request in server.requests]
    assert [len(messages) for messages in sent] == [2, 1, 1, 2]
    assert sent[1] == [{"role": "user", "content": "Hi\n\nHi"}]


async def test_a_model_that_refuses_its_own_order_too_is_not_asked_again(
    server: ProviderServer, provider: OpenAIProvider
) -> None:
    server.play(*[error_answer(400, ORDERS[0])] * 3)
    for _ in range(2):
        assert (await failure(provider)).code == FailureCode.INVALID_REQUEST
    assert len(server.requests) == 3

"""What a model call becomes in the words of Anthropic's Messages API."""

import base64
import itertools
import json
import random
import re
from typing import Any

import pytest

from rejoin.shared.content import FilePart, ImagePart, TextPart
from rejoin.shared.errors import ProviderError
from rejoin.shared.events import FailureCode
from rejoin.shared.request import ResponseFormat
from rejoin.worker.providers.anthropic import AnthropicProvider
from rejoin.worker.providers.anthropic_request import body, headers
from rejoin.worker.providers.base import ModelRequest, TextChunk, Tool, ToolCall, Turn, UsageChunk
from tests.providers.answers import STOP, answer, failure
from tests.providers.anthropic_wire import END, MODEL, REDACTED, SIGNED, begin, call, stop
from tests.support.provider_script import Answer
from tests.support.provider_server import ProviderServer

BEFORE = "2023-06-01"  # the last version of the API that takes a temperature
ADAPTIVE = {"type": "adaptive", "display": "summarized"}
SCHEMA: dict[str, object] = {
    "type": "object",
    "properties": {"n": {"type": "integer", "minimum": 1}},
    "required": ["n"],
    "additionalProperties": False,
}
FORMAT = ResponseFormat("number", SCHEMA)
NOW = Tool("now", "The time.", {"type": "object", "properties": {}})
HI = Turn("user", "Hi")


def made(*turns: Turn, model: str = MODEL, **options: Any) -> dict[str, Any]:
    return body(ModelRequest(model, turns or (HI,), **options))


def said(*turns: Turn) -> Any:
    return made(*turns)["messages"]


def block(text: str) -> dict[str, object]:
    return {"type": "text", "text": text}


async def test_a_request_holds_what_was_asked_and_nothing_else(
    server: ProviderServer, claude: AnthropicProvider
) -> None:
    server.play(Answer([begin() + END]))
    await answer(claude, ModelRequest(MODEL, [Turn("system", "Be kind."), Turn("user", "é")]))
    request = await server.request()
    assert (request.method, request.path) == ("POST", "/v1/messages")
    assert request.json == {
        "model": MODEL,
        "max_tokens": 128_000,
        "system": "Be kind.",
        "messages": [{"role": "user", "content": [block("é")]}],
        "stream": True,
    }
    assert request.headers["anthropic-version"] > BEFORE
    assert "x-client-request-id" not in request.headers


async def test_a_request_holds_every_option_that_is_set(
    server: ProviderServer, claude: AnthropicProvider
) -> None:
    server.play(Answer([begin() + END]))
    options = ModelRequest(
        "claude-haiku-4-5",
        [HI],
        temperature=0.0,
        top_p=0.5,
        max_tokens=7,
        stop=("END", "\n"),
        tools=[NOW, Tool("bare", "", {"type": "object"})],
        reference="018f-1",
    )
    await answer(claude, options)
    request = await server.request()
    assert request.json == {
        "model": "claude-haiku-4-5",
        "max_tokens": 7,
        "messages": [{"role": "user", "content": [block("Hi")]}],
        "stream": True,
        "temperature": 0.0,
        "top_p": 0.5,
        "stop_sequences": ["END", "\n"],
        "tools": [
            {
                "name": "now",
                "description": "The time.",
                "input_schema": {"type": "object", "properties": {}},
            },
            {"name": "bare", "input_schema": {"type": "object"}},
        ],
    }
    assert request.headers["x-client-request-id"] == "018f-1"
    assert request.headers["anthropic-version"] == BEFORE


@pytest.mark.parametrize(
    ("options", "before"),
    [
        ({"temperature": 1.0}, True),
        ({"top_p": 1.0}, True),
        ({"temperature": 1.0, "reasoning_effort": "low"}, False),
        ({}, False),
    ],
)
def test_only_what_samples_asks_for_the_version_that_takes_it(
    options: dict[str, Any], before: bool
) -> None:
    assert headers(made(**options), "") == ({"anthropic-version": BEFORE} if before else {})


async def test_thinking_is_sent_back_unchanged_and_first(
    server: ProviderServer, claude: AnthropicProvider
) -> None:
    server.play(Answer([begin() + END]))
    signed = SIGNED | {"signature": "+/=\u00e9" * 500, "of_a_later_version": [1, None, {"a": 1.0}]}
    turns = [
        HI,
        Turn(
            "assistant",
            "I look.",
            tool_calls=[ToolCall("toolu_1", "now", {"zone": "ü", "n": [1, {}]})],
            thinking=[signed, REDACTED],
        ),
        Turn("tool", "12:00", tool_call_id="toolu_1"),
    ]
    await answer(claude, ModelRequest(MODEL, turns, tools=[NOW]))
    assert (await server.request()).json["messages"] == [
        {"role": "user", "content": [block("Hi")]},
        {
            "role": "assistant",
            "content": [
                signed,
                REDACTED,
                block("I look."),
                {
                    "type": "tool_use",
                    "id": "toolu_1",
                    "name": "now",
                    "input": {"zone": "ü", "n": [1, {}]},
                },
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "toolu_1", "content": [block("12:00")]}
            ],
        },
    ]


def test_thinking_of_another_provider_is_left_out() -> None:
    thinking = [{"type": "reasoning.encrypted", "data": "x"}, SIGNED]
    _, turn = said(HI, Turn("assistant", "a", thinking=thinking))
    assert turn["content"] == [SIGNED, block("a")]


def test_results_of_one_step_are_one_turn_with_what_the_user_says_next() -> None:
    turns = [
        HI,
        Turn("assistant", "", [ToolCall("1", "now", {}), ToolCall("2", "now", {})]),
        Turn("tool", "a", tool_call_id="1"),
        Turn("tool", "", tool_call_id="2", is_error=True),
        Turn("user", "And?"),
    ]
    assert said(*turns)[2:] == [
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "1", "content": [block("a")]},
                {"type": "tool_result", "tool_use_id": "2", "is_error": True},
                block("And?"),
            ],
        }
    ]


def test_a_call_and_its_result_keep_one_id_whatever_letters_it_had() -> None:
    turns = [
        Turn("assistant", "", tool_calls=[ToolCall("functions.now:0", "now", {})]),
        Turn("tool", "x", tool_call_id="functions.now:0"),
    ]
    _, use, result = (turn["content"][0] for turn in said(HI, *turns))
    assert use["id"] == result["tool_use_id"] == "functions_now_0"


def test_roles_alternate_whatever_the_turns() -> None:
    random_ = random.Random(7)
    for _ in range(200):
        roles = random_.choices(["system", "user", "assistant", "tool"], k=12)
        turns = [Turn(role, random_.choice(["", "x"]), tool_call_id="1") for role in roles]
        sent = [turn["role"] for turn in said(*turns)]
        assert all(before != after for before, after in itertools.pairwise(sent))
        assert set(sent) <= {"user", "assistant"}


def test_what_is_empty_is_left_out() -> None:
    turns = [HI, Turn("assistant", ""), Turn("user", (TextPart(""), TextPart("b")))]
    assert said(*turns) == [{"role": "user", "content": [block("Hi"), block("b")]}]


def test_the_systems_turns_are_one_text_wherever_they_stand() -> None:
    turns = [Turn("system", "A"), HI, Turn("system", (TextPart("B"), TextPart("C")))]
    sent = made(*turns)
    assert sent["system"] == "A\n\nB\nC"
    assert sent["messages"] == [{"role": "user", "content": [block("Hi")]}]
    assert "system" not in made()


def data(text: bytes) -> str:
    return base64.b64encode(text).decode()


@pytest.mark.parametrize(
    ("part", "sent"),
    [
        (
            ImagePart("https://example.org/a.png?b=1"),
            {"type": "image", "source": {"type": "url", "url": "https://example.org/a.png?b=1"}},
        ),
        (
            ImagePart("data:image/png;base64,iVBOR+/="),
            {
                "type": "image",
                "source": {"type": "base64", "media_type": "image/png", "data": "iVBOR+/="},
            },
        ),
        (
            FilePart("a.pdf", "data:application/pdf;base64,JVBERi0="),
            {
                "type": "document",
                "title": "a.pdf",
                "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="},
            },
        ),
        (
            FilePart("a.md", f"data:text/markdown;charset=utf-8;base64,{data('# Ü'.encode())}"),
            {
                "type": "document",
                "title": "a.md",
                "source": {"type": "text", "media_type": "text/plain", "data": "# Ü"},
            },
        ),
    ],
)
def test_each_kind_of_part_has_its_block(
    part: ImagePart | FilePart, sent: dict[str, object]
) -> None:
    (turn,) = said(Turn("user", (TextPart("See:"), part)))
    assert turn["content"] == [block("See:"), sent]


@pytest.mark.parametrize(
    "part",
    [
        FilePart("a.zip", "data:application/zip;base64,UEs="),
        FilePart("a.pdf", "https://example.org/a.pdf"),
        FilePart("a.txt", "data:text/plain,abc"),
        FilePart("a.txt", "data:text/plain;base64,a"),
        ImagePart("data:image/png,abc"),
    ],
)
def test_a_part_that_the_api_has_no_words_for_is_refused(part: ImagePart | FilePart) -> None:
    with pytest.raises(ProviderError) as caught:
        made(Turn("user", (part,)))
    assert (caught.value.code, caught.value.retryable) == (FailureCode.INVALID_REQUEST, False)


@pytest.mark.parametrize(
    ("model", "limit"),
    [
        ("claude-opus-5-5", 128_000),
        ("claude-haiku-4-5", 64_000),
        ("claude-haiku-4-5-20251001", 64_000),
        ("claude-of-tomorrow-9", 64_000),
        ("kimi-k3", 8_192),
    ],
)
def test_the_limit_that_the_api_insists_on_is_the_models_own(model: str, limit: int) -> None:
    assert made(model=model)["max_tokens"] == limit
    assert made(model=model, max_tokens=5)["max_tokens"] == 5


@pytest.mark.parametrize(
    "model", ["claude-opus-5-5", "claude-sonnet-5", "claude-opus-4-8", "claude-sonnet-4-6"]
)
def test_models_of_today_are_told_an_effort_and_think_as_they_like(model: str) -> None:
    sent = made(model=model, reasoning_effort="xhigh", temperature=0.5, top_p=0.5)
    assert sent["thinking"] == ADAPTIVE
    assert sent["output_config"] == {"effort": "xhigh"}
    assert not {"temperature", "top_p"} & set(sent)


@pytest.mark.parametrize(
    ("effort", "limit", "budget"),
    [
        ("minimal", 64_000, 1024),
        ("low", 64_000, 2048),
        ("medium", 64_000, 8192),
        ("high", 64_000, 16_384),
        ("max", 64_000, 32_000),
        ("high", 4096, 2048),
        ("low", 2048, 1024),
    ],
)
@pytest.mark.parametrize("model", ["claude-haiku-4-5", "claude-opus-4-5-20251101", "kimi-k3"])
def test_models_before_them_think_by_a_budget_below_the_limit(
    model: str, effort: str, limit: int, budget: int
) -> None:
    sent = made(model=model, reasoning_effort=effort, max_tokens=limit, temperature=0.5, top_p=0.5)
    assert sent["thinking"] == {"type": "enabled", "budget_tokens": budget}
    assert not {"temperature", "top_p", "output_config"} & set(sent)


def test_a_limit_too_small_to_think_leaves_thinking_off() -> None:
    sent = made(model="claude-haiku-4-5", reasoning_effort="high", max_tokens=2047, temperature=0.5)
    assert "thinking" not in sent
    assert sent["temperature"] == 0.5


@pytest.mark.parametrize("model", ["claude-sonnet-5-5", "claude-haiku-4-5"])
def test_no_effort_is_thinking_turned_off_and_no_word_the_models_own(model: str) -> None:
    sent = made(model=model, reasoning_effort="none", temperature=0.5)
    assert (sent["thinking"], sent["temperature"]) == ({"type": "disabled"}, 0.5)
    assert not {"thinking", "output_config"} & set(made(model=model))


def test_an_effort_has_the_words_of_the_api() -> None:
    assert made(reasoning_effort="minimal")["output_config"] == {"effort": "low"}
    with pytest.raises(ProviderError, match="reasoning_effort is one of") as caught:
        made(model="claude-haiku-4-5", reasoning_effort="enormous")
    assert caught.value.code == FailureCode.INVALID_REQUEST


@pytest.mark.parametrize("model", ["claude-opus-5-5", "claude-haiku-4-5"])
def test_a_format_is_the_apis_own_with_the_schema_in_the_subset_it_takes(model: str) -> None:
    sent = made(model=model, response_format=FORMAT)
    schema = sent["output_config"]["format"]["schema"]
    assert sent["output_config"]["format"]["type"] == "json_schema"
    assert schema["additionalProperties"] is False
    assert schema["properties"]["n"] == {"type": "integer", "description": "{minimum: 1}"}
    assert not {"tools", "tool_choice"} & set(sent)
    assert SCHEMA["properties"] == {"n": {"type": "integer", "minimum": 1}}  # as it was


def test_a_format_and_an_effort_go_together() -> None:
    sent = made(response_format=FORMAT, reasoning_effort="low", tools=[NOW])
    assert set(sent["output_config"]) == {"effort", "format"}
    assert [tool["name"] for tool in sent["tools"]] == ["now"]
    assert "tool_choice" not in sent


def test_a_schema_that_the_sdk_cannot_put_so_is_sent_as_it_is() -> None:
    schema: dict[str, object] = {"type": ["object", "null"], "properties": {}}
    sent = made(response_format=ResponseFormat("x", schema))
    assert sent["output_config"]["format"]["schema"] == schema


def test_where_the_api_has_no_format_a_tool_of_its_name_is_forced() -> None:
    sent = made(model="kimi-k3", response_format=FORMAT, reasoning_effort="high", temperature=0.5)
    (tool,) = sent["tools"]
    assert (tool["name"], tool["input_schema"]) == ("number", SCHEMA)
    assert sent["tool_choice"] == {"type": "tool", "name": "number"}
    # With a forced tool the API takes no thinking.
    assert not {"output_config", "thinking"} & set(sent)
    assert sent["temperature"] == 0.5


def test_beside_tools_of_the_request_the_model_may_choose_among_all() -> None:
    sent = made(model="kimi-k3", response_format=FORMAT, tools=[NOW])
    assert [tool["name"] for tool in sent["tools"]] == ["now", "number"]
    assert sent["tool_choice"] == {"type": "any"}


async def test_the_forced_tools_arguments_are_the_text_as_they_come(
    server: ProviderServer, claude: AnthropicProvider
) -> None:
    pieces = ['{"n"', ": 4", "2}"]
    server.play(Answer([begin() + call(*pieces, name="number") + stop("tool_use")]))
    chunks = await answer(claude, ModelRequest("kimi-k3", [HI], response_format=FORMAT))
    assert chunks == [*map(TextChunk, pieces), UsageChunk(), STOP]
    assert json.loads("".join(pieces)) == {"n": 42}


async def test_half_a_surrogate_pair_in_the_request_is_refused(claude: AnthropicProvider) -> None:
    caught = await failure(claude, ModelRequest(MODEL, [Turn("user", "\ud83d")]))
    assert caught.code == FailureCode.INVALID_REQUEST


BOUND = (
    "messages.1.content.0: Invalid `signature` in `thinking` block. The block is bound to a"
    " different conversation."
)


def refusal(message: str) -> Answer:
    said = {"type": "error", "error": {"type": "invalid_request_error", "message": message}}
    return Answer([json.dumps(said).encode()], 400, content_type="application/json")


async def test_thoughts_that_the_api_does_not_take_back_are_left_out(
    server: ProviderServer, claude: AnthropicProvider
) -> None:
    server.play(refusal(BOUND), Answer([begin() + END]))
    turns = [HI, Turn("assistant", "a", thinking=[SIGNED]), HI]
    assert (await answer(claude, ModelRequest(MODEL, turns)))[-1] == STOP
    bodies: list[Any] = [request.json for request in server.requests]
    first, second = (body["messages"] for body in bodies)
    assert first[1]["content"] == [SIGNED, block("a")]
    assert second == [first[0], {"role": "assistant", "content": [block("a")]}, first[2]]


@pytest.mark.parametrize(
    ("message", "thinking"), [(BOUND, []), ("messages: too many `thinking` blocks", [SIGNED])]
)
async def test_what_else_is_refused_is_not_sent_again(
    server: ProviderServer, claude: AnthropicProvider, message: str, thinking: list[Any]
) -> None:
    server.play(refusal(message))
    turns = [HI, Turn("assistant", "a", thinking=thinking), HI]
    caught = await failure(claude, ModelRequest(MODEL, turns))
    assert (caught.code, len(server.requests)) == (FailureCode.INVALID_REQUEST, 1)


LOOK = ToolCall("call_1", "look", {"at": 1})


def test_calls_in_the_history_name_their_tools_where_none_is_offered() -> None:
    turns = [HI, Turn("assistant", "", [LOOK]), Turn("tool", "x", tool_call_id="call_1"), HI]
    sent = made(*turns)
    assert sent["tools"] == [{"name": "look", "input_schema": {"type": "object"}}]
    assert sent["tool_choice"] == {"type": "none"}
    offered = made(*turns, tools=[NOW])
    assert [tool["name"] for tool in offered["tools"]] == ["now"]
    assert "tool_choice" not in offered


def test_two_ids_of_the_same_letters_stay_two() -> None:
    calls = [ToolCall(call_id, "now", {}) for call_id in ("a.1", "a:1", "a_1", "x" * 70)]
    results = [Turn("tool", call.tool_call_id, tool_call_id=call.tool_call_id) for call in calls]
    _, asked, answered = said(HI, Turn("assistant", "", calls), *results)
    ids = [use["id"] for use in asked["content"]]
    assert len(set(ids)) == 4
    assert ids[2] == "a_1"  # it has the right to its own
    assert all(re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", call_id) for call_id in ids)
    assert [result["tool_use_id"] for result in answered["content"]] == ids


def test_a_conversation_begins_with_the_user() -> None:
    first, second = said(Turn("system", "Be kind."), Turn("assistant", "Hello!"))
    assert (first["role"], second) == ("user", {"role": "assistant", "content": [block("Hello!")]})


def test_a_users_turn_without_words_is_not_left_out() -> None:
    sent = said(HI, Turn("assistant", "Hello!"), Turn("user", " \n"))
    assert [turn["role"] for turn in sent] == ["user", "assistant", "user"]
    assert sent[-1]["content"][0]["text"].strip()


def test_an_answer_to_go_on_with_ends_without_white_space() -> None:
    assert said(HI, Turn("assistant", "Well, \n"))[-1]["content"] == [block("Well,")]
    assert said(HI, Turn("assistant", "Well, \n"), HI)[1]["content"] == [block("Well, \n")]


def test_thoughts_alone_are_no_answer_and_none_comes_after_words() -> None:
    assert said(HI, Turn("assistant", " ", thinking=[SIGNED]), HI) == [
        {"role": "user", "content": [block("Hi"), block("Hi")]}
    ]
    both = said(HI, Turn("assistant", "a"), Turn("assistant", "b", thinking=[SIGNED]), HI)
    assert both[1]["content"] == [block("a"), block("b")]


@pytest.mark.parametrize(
    ("thoughts", "on"), [([[], []], False), ([[SIGNED], []], True), ([[], [SIGNED]], True)]
)
def test_a_model_with_a_budget_thinks_in_mid_step_only_where_it_has_thought(
    thoughts: list[list[dict[str, object]]], on: bool
) -> None:
    steps = []
    for number, thinking in enumerate(thoughts):
        call = ToolCall(f"call_{number}", "now", {})
        steps += [
            Turn("assistant", "", [call], thinking=thinking),
            Turn("tool", "x", tool_call_id=call.tool_call_id),
        ]
    options: dict[str, Any] = {"reasoning_effort": "high", "tools": [NOW]}
    assert ("thinking" in made(HI, *steps, model="claude-haiku-4-5", **options)) is on
    assert made(HI, *steps, **options)["thinking"] == ADAPTIVE
    answered = made(HI, *steps, Turn("assistant", "a"), HI, model="claude-haiku-4-5", **options)
    assert "thinking" in answered

"""Each rule refuses what breaks it, in the server's words, and nothing that keeps to it."""

import json
from collections.abc import Mapping
from typing import Any

import httpx
import pytest

from tests.support.pairing_rules import RULES, rules_for
from tests.support.provider_script import Answer, sse
from tests.support.provider_server import ProviderServer

Message = dict[str, Any]
HI: Message = {"role": "user", "content": "Hi"}
HELLO: Message = {"role": "assistant", "content": "Hello!"}


def call(call_id: str = "call_1", name: str = "look", arguments: Any = "{}") -> Message:
    return {"id": call_id, "function": {"name": name, "arguments": arguments}}


def asked(*calls: Message, content: str | None = None) -> Message:
    return {"role": "assistant", "content": content, "tool_calls": list(calls or (call(),))}


def result(call_id: str = "call_1", content: str | None = "seen") -> Message:
    return {"role": "tool", "tool_call_id": call_id, "content": content}


IMAGE: Message = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}
DONE = [HI, asked(), result()]


@pytest.mark.parametrize("wire", ["openai", "compatible", "openrouter", "ollama"])
def test_a_history_as_it_should_be_is_taken(wire: str) -> None:
    two = asked(call("a"), call("b"))
    messages = [{"role": "system", "content": "s"}, HI, two, result("b"), result("a"), HELLO, HI]
    assert RULES[wire]({"messages": messages}) is None


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        ([HI, asked()], "must be followed by tool messages"),
        ([HI, asked(), HI, result()], "must be followed by tool messages"),
        ([HI, asked(call("a"), call("b")), result("a"), HI], "response messages: b"),
        ([HI, result()], "must be a response to a preceeding message"),
        ([*DONE, HELLO, result()], "must be a response to a preceeding message"),
        ([*DONE, result("other")], "'tool_call_id' of 'other' not found"),
        ([*DONE, result()], "Duplicate value"),
        ([HI, asked(call(), call()), result()], "Duplicate value"),
        ([HI, {"role": "assistant", "content": None}], "expected a string, got null"),
        ([HI, asked(), result(content=None)], "expected a string, got null"),
        ([HI, asked(call("x" * 65)), result("x" * 65)], "string too long"),
        ([HI, asked(call("")), result("")], "string too long"),
        ([HI, asked(call(name="a.b")), result()], "does not match pattern"),
        ([HI, asked(call(arguments={})), result()], "expected a string"),
        ([HI, {**HELLO, "tool_calls": []}], "empty array"),
        ([{**HI, "tool_calls": [call()]}, result()], "Additional properties"),
        ([{**HI, "tool_call_id": "call_1"}], "Additional properties"),
        ([HI, {**HELLO, "content": [IMAGE]}], "Image URLs are only allowed"),
        ([{"role": "user", "content": []}], "empty array"),
        ([], "empty array"),
    ],
)
def test_openais_rules(messages: list[Message], said: str) -> None:
    assert said in (RULES["openai"]({"messages": messages}) or "")


def test_openai_takes_ids_of_forty_and_any_order_of_roles() -> None:
    long = [HI, HI, asked(call("x" * 41)), result("x" * 41), HI, {"role": "system", "content": "s"}]
    assert "string too long" in (RULES["openai"]({"messages": long}) or "")
    short = json.loads(json.dumps(long).replace("x" * 41, "x" * 40))
    assert RULES["openai"]({"messages": short}) is None
    assert RULES["openai"]({"messages": [HI], "tool_choice": "none"}) is not None
    assert RULES["openai"]({"messages": [HI], "tools": []}) is not None


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        ([HI, HI], "must alternate"),
        ([HELLO, HI], "must alternate"),
        ([HI, HELLO, HELLO], "must alternate"),
        ([HI, HELLO, asked(), result()], "must alternate"),
        ([*DONE, HI], "Unexpected role 'user' after role 'tool'"),
        ([HI, {"role": "system", "content": "s"}], "must be at the beginning"),
        ([HI, {"role": "assistant", "content": ""}], "either content or tool_calls"),
        ([HI, asked(call(arguments="{")), result()], "Invalid tool call arguments"),
    ],
)
def test_the_rules_of_strict_templates(messages: list[Message], said: str) -> None:
    assert said in (RULES["compatible"]({"messages": messages}) or "")


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ({"role": "assistant", "content": None}, "invalid message content type"),
        (asked(call(arguments="[")), "invalid tool call arguments"),
        ({"role": "user", "content": [IMAGE]}, "invalid image input"),
        ({"role": "user", "content": [{"type": "file"}]}, "invalid message format"),
        (asked(), "must be followed"),
    ],
)
def test_ollamas_rules(message: Message, said: str) -> None:
    assert said in (RULES["ollama"]({"messages": [HI, message]}) or "")


TEXT: Message = {"type": "text", "text": "a"}
THOUGHT: Message = {"type": "thinking", "thinking": "So.", "signature": "s"}
TOOLS = [{"name": "look", "input_schema": {}}]


def user(*blocks: Message) -> Message:
    return {"role": "user", "content": list(blocks or (TEXT,))}


def model(*blocks: Message) -> Message:
    return {"role": "assistant", "content": list(blocks or (TEXT,))}


def use(call_id: str = "a", **members: Any) -> Message:
    return {"type": "tool_use", "id": call_id, "name": "look", "input": {}, **members}


def given(call_id: str = "a", **members: Any) -> Message:
    return {"type": "tool_result", "tool_use_id": call_id, **members}


def test_a_history_of_anthropics_as_it_should_be_is_taken() -> None:
    messages = [
        user(),
        user(),
        model(THOUGHT, TEXT, use("a"), use("b")),
        user(given("b"), given("a", content=[TEXT])),
        model(use("c")),
        user(given("c"), TEXT),
        model({"type": "text", "text": "a\n"}),
        user(),
    ]
    thinking = {"type": "enabled", "budget_tokens": 1024}
    assert RULES["anthropic"]({"messages": messages, "tools": TOOLS, "thinking": thinking}) is None
    assert RULES["anthropic"]({"messages": messages[:6], "tools": TOOLS}) is None


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        ([], "at least one message"),
        ([model(), user()], 'must use the "user" role'),
        ([{"role": "user", "content": []}], "must have non-empty content"),
        ([user({"type": "text", "text": ""})], "must be non-empty"),
        ([user({"type": "text", "text": " "})], "non-whitespace"),
        ([user(), model(use()), user(given(content=[{"type": "text", "text": ""}]))], "non-empty"),
        ([user(), model({"type": "text", "text": "a "})], "trailing whitespace"),
        ([user(), model(use())], "without `tool_result` blocks immediately after: a"),
        ([user(), model(use()), user()], "without `tool_result` blocks immediately after: a"),
        ([user(), model(use()), user(TEXT, given())], "without `tool_result` blocks immediately"),
        ([user(), model(use("a"), use("b")), user(given("a"))], "without `tool_result` blocks"),
        ([user(given())], "unexpected `tool_use_id`"),
        ([user(), model(use()), user(given()), model(), user(given())], "unexpected `tool_use_id`"),
        ([user(), model(use()), user(given(), given())], "must have a single result"),
        ([user(), *[model(use()), user(given())] * 2], "ids must be unique"),
        ([user(), model(use("a.1")), user(given("a.1"))], "should match pattern"),
        ([user(), model(use(name="a.b")), user(given())], "should match pattern"),
        ([user(), model(use(input="{}")), user(given())], "valid dictionary"),
        ([user(use())], "cannot be in user messages"),
        ([user(), model(given()), user()], "cannot be in assistant messages"),
        ([user(), model(TEXT, THOUGHT), user()], "cannot be `thinking`"),
        ([user(), model(TEXT, THOUGHT, TEXT), user()], "the first block must be"),
        ([user(), model({"type": "thinking", "thinking": "x"}, TEXT)], "signature: Field required"),
    ],
)
def test_anthropics_rules(messages: list[Message], said: str) -> None:
    assert said in (RULES["anthropic"]({"messages": messages, "tools": TOOLS}) or "")


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ({}, "must define tools"),
        ({"tools": [], "tool_choice": {"type": "none"}}, "must define tools"),
        ({"tools": TOOLS * 2}, "must be unique"),
        ({"tools": TOOLS, "thinking": {"type": "enabled"}}, "Expected `thinking`"),
    ],
)
def test_anthropics_rules_on_tools(members: Mapping[str, Any], said: str) -> None:
    messages = [user(), model(use()), user(given())]
    assert said in (RULES["anthropic"]({"messages": messages, **members}) or "")
    alone = {"tool_choice": {"type": "none"}}
    assert "while providing tools" in (RULES["anthropic"]({"messages": [user()], **alone}) or "")
    forced = {"tools": TOOLS, "tool_choice": {"type": "any"}, "thinking": {"type": "enabled"}}
    assert "forces tool use" in (RULES["anthropic"]({"messages": [user()], **forced}) or "")


@pytest.mark.parametrize("wire", RULES)
async def test_a_server_refuses_by_its_rules_and_keeps_its_script(wire: str) -> None:
    async with ProviderServer(pairing=rules_for(wire)) as server, httpx.AsyncClient() as http:
        server.play(Answer([sse("[DONE]")]))
        url = f"{server.base_url}/messages"
        refused = await http.post(url, json={"messages": []})
        assert "error" in (refused.json() | {refused.json().get("object"): 0})
        assert refused.status_code == 400
        body = {"messages": [HI]}
        assert (await http.post(url, json=body)).text == sse("[DONE]").decode()
        assert server.refusals == [refused.content]

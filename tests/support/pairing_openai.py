"""What servers with OpenAI's chat completions refuse; sources in pairing_rules.py."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

Body = Mapping[str, Any]

_NAME: Final = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_DATA_IMAGE: Final = re.compile(r"data:(image/(jpeg|jpg|png|webp))?;base64,")
_ALTERNATE: Final = (
    "After the optional system message, conversation roles must alternate user and assistant roles"
    " except for tool calls and results."
)


def openai(body: Body, id_chars: int) -> Iterator[str]:
    """OpenAI's chat completions, with ids of so many characters."""
    messages = body["messages"]
    if not messages:
        yield "Invalid 'messages': empty array. Expected an array with minimum length 1."
    if body.get("tools") == []:
        yield "Invalid 'tools': empty array. Expected an array with minimum length 1."
    if "tool_choice" in body and "tools" not in body:
        yield "'tool_choice' is only allowed when 'tools' are specified."
    for at, message in enumerate(messages):
        yield from _openai_content(at, message)
        yield from _openai_calls(at, message, id_chars)
    yield from _openai_pairs(messages)


def _openai_content(at: int, message: Body) -> Iterator[str]:
    role, content = message["role"], message.get("content")
    if role not in {"system", "user", "assistant", "tool"}:
        yield f"Invalid value: '{role}'. Supported values are: 'system', 'assistant', 'user'…"
    if "tool_call_id" in message and role != "tool":
        yield f"Additional properties are not allowed: 'messages[{at}].tool_call_id'."  # ours
    if content is None:
        if "tool_calls" not in message:
            yield "Invalid value for 'content': expected a string, got null."
    elif content == []:
        yield f"Invalid 'messages[{at}].content': empty array."
    elif role != "user" and any(part["type"] != "text" for part in _parts(content)):
        yield (
            f"Invalid 'messages[{at}]'. Image URLs are only allowed for messages with role 'user',"
            f" but this message with role '{role}' contains an image URL."
        )


def _openai_calls(at: int, message: Body, id_chars: int) -> Iterator[str]:
    calls = message.get("tool_calls")
    if calls is None:
        return
    if message["role"] != "assistant":
        yield f"Additional properties are not allowed: 'messages[{at}].tool_calls'."  # ours
    if calls == []:
        yield f"Invalid 'messages[{at}].tool_calls': empty array."
    for number, call in enumerate(calls):
        place = f"messages[{at}].tool_calls[{number}]"
        if not 0 < len(call["id"]) <= id_chars:
            yield (
                f"Invalid '{place}.id': string too long. Expected a string with maximum length"
                f" {id_chars}, but got a string with length {len(call['id'])} instead."
            )
        if not _NAME.fullmatch(call["function"]["name"]):
            yield (
                f"Invalid '{place}.function.name': string does not match pattern. Expected a string"
                " that matches the pattern '^[a-zA-Z0-9_-]+$'."
            )
        if not isinstance(call["function"]["arguments"], str):
            yield f"Invalid type for '{place}.function.arguments': expected a string."


def _openai_pairs(messages: Sequence[Body]) -> Iterator[str]:
    left: list[str] = []  # calls without an answer so far
    asked: set[str] = set()
    for at, message in enumerate([*messages, {"role": "end"}]):
        if message["role"] == "tool":
            call_id = message.get("tool_call_id")
            if not asked:
                yield (
                    "Invalid parameter: messages with role 'tool' must be a response to a"
                    f" preceeding message with 'tool_calls'. (messages.[{at}].role)"
                )
            elif call_id not in asked:
                yield (
                    f"Invalid parameter: 'tool_call_id' of '{call_id}' not found in 'tool_calls' of"
                    " previous message."
                )
            elif call_id not in left:
                yield f"Duplicate value for 'tool_call_id' of '{call_id}'."
            else:
                left.remove(call_id)
            continue
        if left:
            yield (
                "An assistant message with 'tool_calls' must be followed by tool messages"
                " responding to each 'tool_call_id'. The following tool_call_ids did not have"
                f" response messages: {', '.join(left)}"
            )
        left = [call["id"] for call in message.get("tool_calls", ())]
        asked = set(left)
        if len(asked) < len(left):
            yield f"Duplicate value for 'id' in 'messages[{at}].tool_calls'."  # ours


def ollama(messages: Sequence[Body]) -> Iterator[str]:
    """What Ollama reads its messages into fails."""
    for message in messages:
        content = message.get("content")
        if content is None and not message.get("tool_calls"):
            yield "invalid message content type: <nil>"
        for part in _parts(content or ""):
            if part["type"] not in {"text", "image_url"}:
                yield "invalid message format"
            elif part["type"] == "image_url" and not _DATA_IMAGE.match(part["image_url"]["url"]):
                yield "invalid image input"
        for call in message.get("tool_calls", ()):
            if not _is_object(call["function"]["arguments"]):
                yield "invalid tool call arguments"


def strict(messages: Sequence[Body]) -> Iterator[str]:
    """A chat template that insists on its order, and Mistral's own rules."""
    if any(message["role"] == "system" for message in messages[1:]):
        yield "System message must be at the beginning."
    for message in messages:
        calls = message.get("tool_calls", ())
        if message["role"] == "assistant" and not calls and not message.get("content"):
            yield "Assistant message must have either content or tool_calls, but not none."
        if not all(_is_object(call["function"]["arguments"]) for call in calls):
            yield "Invalid tool call arguments."  # ours
    yield from _order([message for message in messages if message["role"] != "system"])


def _order(messages: Sequence[Body]) -> Iterator[str]:
    expected, before = "user", None
    for message in messages:
        role, calls = message["role"], message.get("tool_calls")
        if {role, before} == {"user", "tool"}:
            yield f"Unexpected role '{role}' after role '{before}'"
        if role != "tool" and role != expected:
            yield _ALTERNATE
        if role != "tool" and not calls:  # a call is part of the answer to come
            expected = "assistant" if role == "user" else "user"
        before = role


def _parts(content: Any) -> Sequence[Body]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _is_object(arguments: str) -> bool:
    try:
        return isinstance(json.loads(arguments), dict)
    except ValueError:
        return False

"""An event's data: one line of JSON, in UTF-8, with the names of the contract."""

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoin.shared import events, tool_events
from rejoin.shared.events import (
    Done,
    Event,
    Failed,
    FailureCode,
    FinishReason,
    Reasoning,
    Reset,
    Retry,
    Start,
    Step,
    Text,
    Usage,
    dumps,
)
from rejoin.shared.tool_events import (
    Data,
    Needs,
    ToolCall,
    ToolError,
    ToolResult,
    ToolStart,
    ToolWaiting,
)

texts = st.text(st.characters(exclude_categories=["Cs"]))

# The contract's table: the name of an event and the names in its data, in its order.
TABLE: list[tuple[Event, str, list[str]]] = [
    (
        Start("m", "c", "demo/echo", 1, "2026-11-21T09:30:00.125Z"),
        "start",
        ["message_id", "conversation_id", "model", "attempt", "created_at"],
    ),
    (
        Reset(None, 2, "demo/echo", "takeover"),
        "reset",
        ["after", "attempt", "model", "reason"],
    ),
    (Text("a"), "text", ["text"]),
    (Reasoning("a"), "reasoning", ["text"]),
    (
        ToolCall("t", "look_up", {"word": "ä"}),
        "tool_call",
        ["tool_call_id", "name", "arguments"],
    ),
    (
        ToolWaiting("t", "look_up", Needs.APPROVAL),
        "tool_waiting",
        ["tool_call_id", "name", "needs"],
    ),
    (ToolStart("t", "look_up"), "tool_start", ["tool_call_id", "name"]),
    (Data("progress", [1, None], "t"), "data", ["name", "value", "tool_call_id"]),
    (ToolResult("t", "look_up", None), "tool_result", ["tool_call_id", "name", "result"]),
    (ToolError("t", "look_up", "x"), "tool_error", ["tool_call_id", "name", "error"]),
    (Step(1, FinishReason.STOP), "step", ["step", "finish_reason"]),
    (
        Usage(),
        "usage",
        [
            "input_tokens",
            "output_tokens",
            "reasoning_tokens",
            "cached_tokens",
            "cost_usd",
            "estimated",
        ],
    ),
    (Done(FinishReason.STOP, 1), "done", ["finish_reason", "text_chars"]),
    (Retry("rate_limited", 0.5), "retry", ["reason", "in_seconds"]),
    (
        Failed(FailureCode.INTERNAL, "x", retryable=True),
        "failed",
        ["code", "message", "retryable", "status"],
    ),
]


@pytest.mark.parametrize(("event", "name", "fields"), TABLE, ids=[name for _, name, _ in TABLE])
def test_an_event_has_the_contracts_name_and_fields(
    event: Event, name: str, fields: list[str]
) -> None:
    assert event.name == name
    assert list(json.loads(event.json())) == fields


def test_every_event_class_is_in_the_table() -> None:
    classes = {
        made
        for made in (*vars(events).values(), *vars(tool_events).values())
        if isinstance(made, type) and dataclasses.is_dataclass(made)
    }
    assert classes == set[object](type(event) for event, _, _ in TABLE)


def test_the_finish_reasons_and_codes_are_the_contracts() -> None:
    assert set(FinishReason) == {"stop", "length", "tool_calls", "content_filter", "cancelled"}
    assert set(FailureCode) == {
        "rate_limited",
        "context_length_exceeded",
        "authentication",
        "invalid_request",
        "content_filter",
        "provider_unavailable",
        "provider_timeout",
        "provider_protocol",
        "invalid_output",
        "attempts_exhausted",
        "deadline_exceeded",
        "internal",
    }


def test_enums_are_encoded_as_their_words() -> None:
    done = json.loads(Done(FinishReason.CANCELLED, 3).json())
    assert done == {"finish_reason": "cancelled", "text_chars": 3}
    failed = Failed(FailureCode.RATE_LIMITED, "slow down", retryable=True, status=429)
    assert json.loads(failed.json()) == {
        "code": "rate_limited",
        "message": "slow down",
        "retryable": True,
        "status": 429,
    }


@given(texts)
def test_any_text_reads_back_from_one_line(text: str) -> None:
    for event in (Text(text), Reasoning(text)):
        encoded = event.json()
        assert json.loads(encoded) == {"text": text}
        # SSE ends a line at CR, LF and CR LF, and nowhere else.
        assert "\n" not in encoded
        assert "\r" not in encoded


@given(texts)
def test_text_is_encoded_as_the_generic_encoder_would(text: str) -> None:
    assert Text(text).json() == dumps({"text": text}) == Reasoning(text).json()


@given(texts)
def test_any_words_of_the_other_events_read_back_from_one_line(text: str) -> None:
    for event, field in (
        (Failed(FailureCode.INTERNAL, text, retryable=False), "message"),
        (Reset(None, 1, text, ""), "model"),
    ):
        encoded = event.json()
        assert json.loads(encoded)[field] == text
        assert "\n" not in encoded
        assert "\r" not in encoded


def test_text_is_not_escaped_to_ascii() -> None:
    text = "Grüße 日本 😀"
    assert text in Text(text).json()
    assert text in Failed(FailureCode.INTERNAL, text, retryable=False).json()


def test_unicodes_own_line_ends_stay_as_they_are() -> None:
    text = "a\u2028b\u2029c\u0085d"
    assert Text(text).json() == f'{{"text":"{text}"}}'


def test_line_ends_and_control_characters_are_escaped() -> None:
    assert Text('a\r\nb\x00\x1f"\\').json() == r'{"text":"a\r\nb\u0000\u001f\"\\"}'


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_a_number_that_json_has_not_is_refused(number: float) -> None:
    with pytest.raises(ValueError, match="JSON"):
        dumps({"value": number})


def test_events_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Text("a").text = "b"  # type: ignore[misc]

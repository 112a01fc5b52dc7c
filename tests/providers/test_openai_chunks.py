"""Bytes to chunks: the same whatever the cuts and line ends, and whatever a provider leaves out."""

import itertools
import json
from collections.abc import Iterable
from decimal import Decimal
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoin.shared.errors import ProviderError
from rejoin.shared.events import FailureCode, FinishReason
from rejoin.worker.providers.base import (
    Chunk,
    FinishChunk,
    ReasoningChunk,
    TextChunk,
    ToolCallChunk,
    UsageChunk,
)
from rejoin.worker.providers.openai_chunks import Completion
from rejoin.worker.providers.openai_tool_calls import ToolCalls
from tests.providers.answers import SAMPLES, STOP, TOOL_SAMPLES, WIRE
from tests.support.provider_script import choice, sse

SAID = SAMPLES | TOOL_SAMPLES
BODIES = {name: (WIRE / f"{name}.txt").read_bytes() for name in SAID}
LONGEST = max(map(len, BODIES.values()))


def read(pieces: Iterable[bytes], *, tools: bool = False) -> list[Chunk]:
    completion = Completion(calls=ToolCalls() if tools else None)
    chunks = [chunk for piece in pieces for chunk in completion.feed(piece)]
    return [*chunks, *completion.end()]


def delta(**members: object) -> bytes:
    return sse({"choices": choice(members)})


def error_of(pieces: Iterable[bytes]) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        read(pieces)
    return caught.value


FINISH = sse({"choices": choice({}, "stop")})


@pytest.mark.parametrize("newline", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("name", SAID)
def test_one_cut_anywhere_changes_nothing(name: str, newline: bytes) -> None:
    body = BODIES[name].replace(b"\r\n", b"\n").replace(b"\n", newline)
    for cut in range(len(body) + 1):
        assert read([body[:cut], body[cut:]], tools=name in TOOL_SAMPLES) == SAID[name]


@given(st.sampled_from(sorted(SAID)), st.lists(st.integers(0, LONGEST), max_size=40))
def test_any_cuts_change_nothing(name: str, cuts: list[int]) -> None:
    body, places = BODIES[name], [0, *sorted(cuts), LONGEST]
    pieces = [body[a:b] for a, b in itertools.pairwise(places)]
    assert read(pieces, tools=name in TOOL_SAMPLES) == SAID[name]


@pytest.mark.parametrize("name", SAID)
def test_every_byte_on_its_own_changes_nothing(name: str) -> None:
    pieces = (bytes([byte]) for byte in BODIES[name])
    assert read(pieces, tools=name in TOOL_SAMPLES) == SAID[name]


@pytest.mark.parametrize("name", ["openai", "openrouter", "ollama", "deepseek", *TOOL_SAMPLES])
def test_an_answer_cut_off_anywhere_before_its_finish_is_an_error(name: str) -> None:
    body = BODIES[name]
    finish = body.index(b'"finish_reason":"')
    for cut in range(finish):
        with pytest.raises(ProviderError) as caught:
            read([body[:cut]], tools=name in TOOL_SAMPLES)
        assert caught.value.code == FailureCode.PROVIDER_PROTOCOL


@pytest.mark.parametrize("name", TOOL_SAMPLES)
def test_an_answer_cut_off_anywhere_before_its_finish_tells_of_no_call(name: str) -> None:
    body = BODIES[name]
    for cut in range(body.index(b'"finish_reason":"')):
        chunks = Completion(calls=ToolCalls()).feed(body[:cut])
        assert not any(isinstance(chunk, ToolCallChunk) for chunk in chunks)


def test_data_on_several_lines_is_one_event() -> None:
    text = json.dumps({"choices": choice({"content": "a"})}, indent=1)
    lines = "".join(f"data: {line}\n" for line in text.split("\n"))
    assert read([f"event: x\n{lines}id: 7\nretry: 5\n\n".encode(), FINISH]) == [
        TextChunk("a"),
        STOP,
    ]


def test_bytes_that_are_no_utf8_become_the_replacement_character() -> None:
    assert read([delta(content="X").replace(b"X", b"a\xff"), FINISH])[0] == TextChunk("a\ufffd")


def test_nothing_is_read_after_done() -> None:
    assert read([FINISH, sse("[DONE]") + delta(content="late"), b"junk"]) == [STOP]


def test_a_refusal_is_visible_text_and_the_finish_reason_says_how_it_ended() -> None:
    end = sse({"choices": choice({}, "content_filter")})
    filtered = FinishChunk(FinishReason.CONTENT_FILTER)
    assert read([delta(refusal="No."), end]) == [TextChunk("No."), filtered]


@pytest.mark.parametrize(
    ("fits", "how"), [(True, FinishReason.CONTENT_FILTER), (False, FinishReason.STOP)]
)
def test_a_refusal_in_place_of_what_was_to_fit_a_schema_is_none_that_stopped(
    fits: bool, how: FinishReason
) -> None:
    completion = Completion(fits=fits)
    chunks = list(completion.feed(delta(content=None, refusal="No.") + FINISH))
    assert chunks[0] == TextChunk("No.")
    assert cast(FinishChunk, chunks[1]).finish_reason is how


@pytest.mark.parametrize(
    "members",
    [
        {"reasoning_content": "so"},
        {"reasoning": "so"},
        {"reasoning_content": "so", "reasoning": "so"},
        {"reasoning_content": None, "reasoning": "so"},
        {"reasoning_content": "", "reasoning": "so"},
    ],
)
def test_reasoning_is_taken_from_one_member(members: dict[str, object]) -> None:
    assert read([delta(**members), FINISH]) == [ReasoningChunk("so"), STOP]


@pytest.mark.parametrize(
    "event",
    [
        {"choices": []},
        {"choices": None},
        {},
        {"choices": choice({"content": None})},
        {"choices": choice({"content": ""})},
        {"choices": [{"index": 0, "delta": None}]},
        {"choices": [{"index": 0}]},
        {"choices": [], "usage": None, "error": None},
        {"choices": [], "prompt_filter_results": [{"prompt_index": 0}]},
        {"choices": choice({"content": "", "tool_calls": [], "function_call": None})},
    ],
)
def test_events_that_say_nothing_give_nothing(event: dict[str, object]) -> None:
    assert read([sse(event), FINISH]) == [STOP]


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("stop", FinishReason.STOP),
        ("length", FinishReason.LENGTH),
        ("content_filter", FinishReason.CONTENT_FILTER),
    ],
)
def test_the_contracts_own_finish_reasons_are_kept(said: str, reason: FinishReason) -> None:
    assert read([sse({"choices": choice({}, said)})]) == [FinishChunk(reason)]


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("eos", FinishReason.STOP),
        ("something_new", FinishReason.STOP),
        ("model_length", FinishReason.LENGTH),
        ("MAX_TOKENS", FinishReason.LENGTH),
        ("sensitive", FinishReason.CONTENT_FILTER),
        ("SAFETY", FinishReason.CONTENT_FILTER),
    ],
)
def test_other_finish_reasons_are_ends_that_keep_their_word(
    said: str, reason: FinishReason
) -> None:
    expected = [FinishChunk(reason, {"finish_reason": said})]
    assert read([sse({"choices": choice({}, said)})]) == expected


@pytest.mark.parametrize("said", ["error", "abort", "network_error"])
def test_a_finish_reason_that_tells_of_a_break_is_an_error(said: str) -> None:
    error = error_of([sse({"choices": choice({}, said)})])
    assert (error.code, error.retryable) == (FailureCode.PROVIDER_UNAVAILABLE, True)


@pytest.mark.parametrize(
    "members",
    [
        {"tool_calls": [{"index": 0, "function": {"name": "x", "arguments": ""}}]},
        {"function_call": {"name": "x"}},
    ],
)
def test_a_tool_that_nobody_offered_is_an_error(members: dict[str, object]) -> None:
    error = error_of([delta(**members), FINISH])
    assert error.code == FailureCode.PROVIDER_PROTOCOL
    assert "tool" in str(error)


@pytest.mark.parametrize(
    "content",
    [
        [{"type": "text"}],
        {"type": "text", "text": "a"},
        [{"type": "thinking", "thinking": "so"}],
        [{"type": "thinking", "thinking": [{"type": "image"}]}],
        [{"type": "image_url", "image_url": "x"}],
        ["a"],
        [None],
        7,
    ],
)
def test_content_that_is_no_text_is_an_error_and_not_lost(content: object) -> None:
    assert error_of([delta(content=content)]).code == FailureCode.PROVIDER_PROTOCOL


def test_mistrals_parts_are_its_thoughts_and_its_text() -> None:
    def part(text: str) -> dict[str, object]:
        return {"type": "text", "text": text}

    source = {"type": "reference", "reference_ids": [1]}
    thought = {"type": "thinking", "thinking": [part("so"), source, part("")]}
    said = [
        delta(content=[thought]),
        delta(content=[{**thought, "closed": True}, part("There"), source, part("")]),
        delta(content=" it is."),
        FINISH,
    ]
    assert read(said) == [
        ReasoningChunk("so"),
        ReasoningChunk("so"),
        TextChunk("There"),
        TextChunk(" it is."),
        STOP,
    ]


def test_a_finish_reason_said_twice_is_one_end() -> None:
    assert read([FINISH, FINISH]) == [STOP]


def test_a_finish_reason_that_is_no_word_is_none() -> None:
    choices = [{"index": 0, "delta": {}, "finish_reason": 1}]
    assert error_of([sse({"choices": choices})]).code == FailureCode.PROVIDER_PROTOCOL


@pytest.mark.parametrize(
    ("usage", "chunk"),
    [
        ({"prompt_tokens": 1, "completion_tokens": 2}, UsageChunk(1, 2)),
        (
            {
                "prompt_tokens": 1,
                "completion_tokens": 2,
                "prompt_tokens_details": None,
                "completion_tokens_details": {"reasoning_tokens": None},
            },
            UsageChunk(1, 2),
        ),
        ({"prompt_tokens": None, "completion_tokens": "2"}, UsageChunk()),
        ({"prompt_tokens": -1, "completion_tokens": 2.0}, UsageChunk(0, 2)),
        ({"prompt_tokens": True, "completion_tokens": float("inf")}, UsageChunk()),
        ({"cost": 1e-05}, UsageChunk(cost_usd=Decimal("0.00001"))),
        ({"cost": 0}, UsageChunk(cost_usd=Decimal(0))),
        ({"cost": -1}, UsageChunk()),
        ({"cost": float("nan")}, UsageChunk()),
        ({"cost": None}, UsageChunk()),
    ],
)
def test_usage_is_what_is_there(usage: dict[str, object], chunk: UsageChunk) -> None:
    assert read([FINISH, sse({"choices": [], "usage": usage})]) == [STOP, chunk]


def test_usage_that_only_repeats_itself_is_told_once() -> None:
    usage = {"prompt_tokens": 1, "completion_tokens": 2}
    both = {"choices": choice({}, "stop"), "usage": usage}
    assert read([sse(both), sse({"usage": usage})]) == [STOP, UsageChunk(1, 2)]


def test_an_event_without_an_end_is_refused_before_it_fills_the_memory() -> None:
    pieces = [b"data: ", *([b"x" * 1_000_000] * 20)]
    assert "more than" in str(error_of(pieces))


def test_lines_without_an_end_are_refused_before_they_fill_the_memory() -> None:
    pieces = [b"data: " + b"x" * 1_000_000 + b"\n"] * 20
    assert "more than" in str(error_of(pieces))

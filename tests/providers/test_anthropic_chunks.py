"""Anthropic's events to chunks: whatever the cuts, and nothing but message_stop is an end."""

import itertools
import json
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoin.shared.errors import ProviderError
from rejoin.shared.events import FailureCode, FinishReason
from rejoin.worker.providers.anthropic_blocks import Offered
from rejoin.worker.providers.anthropic_chunks import MessageStream
from rejoin.worker.providers.base import (
    Chunk,
    FinishChunk,
    ReasoningChunk,
    TextChunk,
    ThinkingChunk,
    ToolCall,
    ToolCallChunk,
    UsageChunk,
    WorkingChunk,
)
from tests.providers.answers import STOP
from tests.providers.anthropic_wire import (
    BODIES,
    END,
    SAMPLES,
    begin,
    call,
    close_block,
    delta,
    error,
    event,
    open_block,
    stop,
    text,
)

TOOLS = Offered(tools=True)


def read(pieces: Iterable[bytes], offered: Offered = TOOLS) -> list[Chunk]:
    message = MessageStream(offered)
    chunks = [chunk for piece in pieces for chunk in message.feed(piece)]
    return [*chunks, *message.end()]


def said(*pieces: bytes, offered: Offered = TOOLS) -> list[Chunk]:
    """What they say, but for the usage and the work in between."""
    chunks = read(pieces, offered)
    return [chunk for chunk in chunks if not isinstance(chunk, UsageChunk | WorkingChunk)]


def error_of(pieces: Iterable[bytes], offered: Offered = TOOLS) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        read(pieces, offered)
    return caught.value


@pytest.mark.parametrize("newline", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("name", SAMPLES)
def test_one_cut_anywhere_changes_nothing(name: str, newline: bytes) -> None:
    body = BODIES[name].replace(b"\n", newline)
    for cut in range(len(body) + 1):
        assert read([body[:cut], body[cut:]]) == SAMPLES[name]


@given(st.sampled_from(sorted(SAMPLES)), st.lists(st.integers(0, 4500), max_size=40))
def test_any_cuts_change_nothing(name: str, cuts: list[int]) -> None:
    body, places = BODIES[name], [0, *sorted(cuts), 4500]
    assert read([body[a:b] for a, b in itertools.pairwise(places)]) == SAMPLES[name]


@pytest.mark.parametrize("name", SAMPLES)
def test_every_byte_on_its_own_changes_nothing(name: str) -> None:
    assert read(bytes([byte]) for byte in BODIES[name]) == SAMPLES[name]


@pytest.mark.parametrize("name", SAMPLES)
def test_an_answer_cut_off_anywhere_before_its_message_stop_is_an_error(name: str) -> None:
    body = BODIES[name]
    for cut in range(body.index(b'{"type":"message_stop"}') + 1):
        broken = error_of([body[:cut]])
        assert (broken.code, broken.retryable) == (FailureCode.PROVIDER_PROTOCOL, True)


def test_an_answer_cut_off_anywhere_tells_of_no_call_but_whole_ones() -> None:
    body, wanted = BODIES["anthropic_tools"], SAMPLES["anthropic_tools"]
    for cut in range(len(body)):
        told = [chunk for chunk in MessageStream(TOOLS).feed(body[:cut]) if is_call(chunk)]
        assert told == [chunk for chunk in wanted if is_call(chunk)][: len(told)]


def is_call(chunk: Chunk) -> bool:
    return isinstance(chunk, ToolCallChunk)


@pytest.mark.parametrize("reason", ["max_tokens", "model_context_window_exceeded", "refusal"])
@pytest.mark.parametrize("closed", [True, False])
@pytest.mark.parametrize("pieces", [[], [""], ['{"a":'], ['{"a":', ' [1, "b']])
def test_a_call_whose_arguments_were_cut_off_is_broken(
    reason: str, closed: bool, pieces: list[str]
) -> None:
    opened = open_block(1, type="tool_use", id="cut", name="now", input={})
    deltas = [delta(1, type="input_json_delta", partial_json=piece) for piece in pieces]
    end = [close_block(1)] if closed else []
    whole, cut, _ = said(begin(), call(), opened, *deltas, *end, stop(reason))
    assert whole == ToolCallChunk(ToolCall("toolu_0", "now", {}))
    assert cut == ToolCallChunk(ToolCall("cut", "now", {}), broken="".join(pieces))


@pytest.mark.parametrize("name", SAMPLES)
def test_an_error_event_at_any_place_is_an_error_after_what_came_before(name: str) -> None:
    *events, last = BODIES[name].split(b"\n\n")
    assert last == b""
    for place in range(len(events)):
        before = b"".join(one + b"\n\n" for one in events[:place])
        chunks: list[Chunk] = []
        with pytest.raises(ProviderError, match="Overloaded") as caught:
            chunks.extend(
                MessageStream(TOOLS).feed(before + error("overloaded_error", "Overloaded"))
            )
        assert (caught.value.code, caught.value.status) == (FailureCode.PROVIDER_UNAVAILABLE, None)
        assert caught.value.retryable
        assert chunks == list(MessageStream(TOOLS).feed(before))


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        ("end_turn", FinishChunk(FinishReason.STOP)),
        ("max_tokens", FinishChunk(FinishReason.LENGTH)),
        ("refusal", FinishChunk(FinishReason.CONTENT_FILTER)),
        ("stop_sequence", FinishChunk(FinishReason.STOP, {"finish_reason": "stop_sequence"})),
        (
            "model_context_window_exceeded",
            FinishChunk(FinishReason.LENGTH, {"finish_reason": "model_context_window_exceeded"}),
        ),
        ("something_new", FinishChunk(FinishReason.STOP, {"finish_reason": "something_new"})),
    ],
)
def test_each_stop_reason_has_its_finish_reason(reason: str, finish: FinishChunk) -> None:
    assert said(begin(), text("a"), stop(reason)) == [TextChunk("a"), finish]


def test_a_call_ends_in_tool_calls() -> None:
    finish = FinishChunk(FinishReason.TOOL_CALLS)
    expected = [ToolCallChunk(ToolCall("toolu_0", "now", {})), finish]
    assert said(begin(), call(), stop("tool_use")) == expected


def test_a_pause_is_no_end_and_its_content_is_kept_whole() -> None:
    message = MessageStream(TOOLS)
    assert list(message.feed(begin() + text("a", "b") + text(index=1) + stop("pause_turn"))) == [
        TextChunk("a"),
        TextChunk("b"),
    ]
    assert list(message.end()) == []
    assert message.paused
    assert message.content == [{"type": "text", "text": "ab"}]


@pytest.mark.parametrize(
    ("pieces", "arguments", "broken"),
    [
        ([], {}, None),
        ([""], {}, None),
        (["  "], {}, None),
        (["{}"], {}, None),
        (['{"a":', '"\\ud83d', "\\ude00", '"}'], {"a": "😀"}, None),
        (['{"a": 1'], {}, '{"a": 1'),
        (["[1]"], {}, "[1]"),
        (["null"], {}, "null"),
        (["[" * 100_000], {}, "[" * 100_000),
    ],
)
def test_arguments_are_complete_an_object_or_told_to_be_broken(
    pieces: list[str], arguments: dict[str, object], broken: str | None
) -> None:
    (chunk, _) = said(begin(), call(*pieces), stop("tool_use"))
    assert chunk == ToolCallChunk(ToolCall("toolu_0", "now", arguments), broken)


def test_a_piece_of_the_arguments_shows_that_the_provider_is_not_silent() -> None:
    message = MessageStream(TOOLS)
    start = open_block(type="tool_use", id="1", name="now", input={})
    assert list(message.feed(begin() + start)) == []
    assert list(message.feed(delta(type="input_json_delta", partial_json="{"))) == [WorkingChunk()]


def test_arguments_without_an_end_are_refused_before_they_fill_the_memory() -> None:
    start = open_block(type="tool_use", id="1", name="now", input={})
    piece = delta(type="input_json_delta", partial_json="x" * 1_000_000)
    assert "more than" in str(error_of([begin(), start, *([piece] * 20)]))


def test_arguments_that_came_whole_with_the_start_are_taken() -> None:
    (chunk, _) = said(begin(), call(input={"a": 1}), stop("tool_use"))
    assert chunk == ToolCallChunk(ToolCall("toolu_0", "now", {"a": 1}))


def test_blocks_that_overlap_are_told_apart_by_their_index() -> None:
    opened = [open_block(n, type="tool_use", id=str(n), name="f", input={}) for n in (0, 1)]
    deltas = [
        delta(n, type="input_json_delta", partial_json=piece)
        for piece in ('{"n":', " 1}")
        for n in (1, 0)
    ]
    chunks = said(begin(), *opened, *deltas, close_block(1), close_block(0), stop("tool_use"))
    calls = [chunk.call for chunk in chunks if isinstance(chunk, ToolCallChunk)]
    assert calls == [ToolCall("1", "f", {"n": 1}), ToolCall("0", "f", {"n": 1})]


def test_a_tool_that_nobody_offered_is_an_error() -> None:
    broken = error_of([begin(), call(), END], Offered())
    assert broken.code == FailureCode.PROVIDER_PROTOCOL
    assert "none was offered" in str(broken)


def test_a_block_that_was_not_closed_is_whole_at_the_end() -> None:
    block = open_block(type="thinking", thinking="", signature="")
    signed = delta(type="signature_delta", signature="s")
    thought = {"type": "thinking", "thinking": "", "signature": "s"}
    assert said(begin(), block, signed, END) == [ThinkingChunk(thought), STOP]


def test_text_that_comes_with_the_start_is_not_lost() -> None:
    thought = open_block(0, type="thinking", thinking="T", signature="s") + close_block(0)
    spoken = open_block(1, type="text", text="A") + close_block(1)
    assert said(begin(), thought, spoken, END) == [
        ReasoningChunk("T"),
        ThinkingChunk({"type": "thinking", "thinking": "T", "signature": "s"}),
        TextChunk("A"),
        STOP,
    ]


@pytest.mark.parametrize("answer", [["{", '"a": 1}'], [""]])
def test_the_arguments_of_the_answers_tool_are_the_text(answer: list[str]) -> None:
    start: dict[str, Any] = {} if answer != [""] else {"input": {"a": 1}}
    chunks = said(
        begin(),
        call(*answer, name="form", **start),
        stop("tool_use"),
        offered=Offered(answer="form"),
    )
    *texts, finish = chunks
    assert json.loads("".join(chunk.text for chunk in texts if isinstance(chunk, TextChunk))) == {
        "a": 1
    }
    assert finish == STOP


def test_another_tool_than_the_answers_is_a_call() -> None:
    offered = Offered(tools=True, answer="form")
    expected = [
        ToolCallChunk(ToolCall("toolu_0", "now", {})),
        FinishChunk(FinishReason.TOOL_CALLS),
    ]
    assert said(begin(), call(), stop("tool_use"), offered=offered) == expected


@pytest.mark.parametrize(
    "nothing",
    [
        event("ping"),
        event("something_new", value=1),
        delta(type="something_new"),
        delta(type="citations_delta", citation={"cited_text": "x"}),
        delta(type="text_delta", text=""),
        open_block(1, type="something_new") + delta(1, type="x_delta") + close_block(1),
        b": a comment\n\n",
        b"event: x\n\n",
    ],
)
def test_what_says_nothing_gives_nothing(nothing: bytes) -> None:
    opened = open_block(type="text", text="")
    assert said(begin(), opened, nothing, close_block(), END) == [STOP]


@pytest.mark.parametrize(
    "junk",
    [
        b"data: {not json\n\n",
        b"data: [1]\n\n",
        b"data: [DONE]\n\n",
        b"data: {}\n\n",
        b'data: {"type": "content_block_delta"}\n\n',
        event("message_start"),
        event("content_block_start", index=0),
        event("message_delta"),
        delta(7, type="text_delta", text="of no block"),
        close_block(7),
        event("content_block_stop", index=[]),
        open_block(0, type="text", text="") + delta(type="text_delta", text=1),
        b"data: " + b"[" * 100_000 + b"\n\n",
        b"<html>504</html>\n",
        b'{"type": "message"}\n',
    ],
)
def test_what_is_no_message_event_is_an_error_and_not_lost(junk: bytes) -> None:
    broken = error_of([begin(), text("a", index=5), junk, END])
    assert (broken.code, broken.retryable) == (FailureCode.PROVIDER_PROTOCOL, True)


def test_an_end_without_a_stop_reason_is_an_error() -> None:
    assert "stop reason" in str(error_of([begin(), text("a"), stop(None)]))


def test_nothing_is_read_after_the_message_stop() -> None:
    assert said(begin(), END + error("api_error"), b"junk") == [STOP]


def test_a_last_event_without_its_blank_line_counts() -> None:
    assert said(begin(), END.rstrip()) == [STOP]


@pytest.mark.parametrize(
    ("started", "ended", "usage"),
    [
        ({"input_tokens": 3, "output_tokens": 1}, {"output_tokens": 7}, UsageChunk(3, 7)),
        (
            {"input_tokens": 3, "cache_read_input_tokens": 20, "cache_creation_input_tokens": 5},
            {"output_tokens": 7},
            UsageChunk(28, 7, 0, 20, cache_write_tokens=5),
        ),
        (
            {"input_tokens": 3, "cache_read_input_tokens": 20, "output_tokens": 1},
            {"input_tokens": 4, "cache_read_input_tokens": 21, "output_tokens": 7},
            UsageChunk(25, 7, 0, 21),
        ),
        (
            {"input_tokens": 3, "cache_read_input_tokens": None, "output_tokens": 1},
            {"input_tokens": None, "output_tokens": 7, "output_tokens_details": None},
            UsageChunk(3, 7),
        ),
        (
            {"input_tokens": 3, "cache_read_input_tokens": 20, "output_tokens": 1},
            {"input_tokens": 0, "cache_read_input_tokens": 0, "output_tokens": 0},
            UsageChunk(23, 0, 0, 20),
        ),
        (
            {"input_tokens": 3, "cache_creation": {"ephemeral_5m_input_tokens": 9}},
            {"output_tokens": 7, "output_tokens_details": {"thinking_tokens": 4}},
            UsageChunk(3, 7, 4),
        ),
        ({"input_tokens": "3"}, {"output_tokens": -7}, UsageChunk()),
    ],
)
def test_usage_is_cumulative_and_a_null_says_nothing(
    started: dict[str, Any], ended: dict[str, Any], usage: UsageChunk
) -> None:
    assert read([begin(**started), stop(**ended)])[-2:] == [usage, STOP]


def test_the_input_is_told_at_the_start_and_the_output_with_its_end() -> None:
    between = event("message_delta", delta={"stop_reason": None}, usage={"output_tokens": 3})
    message = MessageStream(TOOLS)
    began = begin(input_tokens=3, cache_read_input_tokens=20, output_tokens=1)
    assert list(message.feed(began + between)) == [UsageChunk(23, 1, 0, 20)]


def test_usage_goes_on_from_the_calls_before() -> None:
    message = MessageStream(TOOLS, earlier=UsageChunk(10, 20, 3, 4, cache_write_tokens=5))
    *_, used, _ = message.feed(
        begin(input_tokens=1, cache_read_input_tokens=1, cache_creation_input_tokens=1)
        + stop(output_tokens=1, output_tokens_details={"thinking_tokens": 1})
    )
    assert used == UsageChunk(13, 21, 4, 5, cache_write_tokens=6)


def test_bytes_that_are_no_utf8_become_the_replacement_character() -> None:
    assert said(begin(), text("X").replace(b"X", b"a\xff"), END)[0] == TextChunk("a\ufffd")


def test_halves_of_a_surrogate_pair_are_passed_on() -> None:
    pieces = [text("X", index=n).replace(b"X", h) for n, h in enumerate((rb"\ud83d", rb"\ude00"))]
    assert said(begin(), *pieces, END)[:2] == [TextChunk("\ud83d"), TextChunk("\ude00")]


def test_an_event_without_an_end_is_refused_before_it_fills_the_memory() -> None:
    assert "more than" in str(error_of([b"data: ", *([b"x" * 1_000_000] * 20)]))


@pytest.mark.parametrize("index", [[], {}])
def test_a_block_whose_index_is_none_is_no_part_of_a_message(index: object) -> None:
    block = {"type": "text", "text": ""}
    opened = event("content_block_start", index=index, content_block=block)
    assert error_of([begin(), opened]).code is FailureCode.PROVIDER_PROTOCOL


def test_blocks_without_an_end_are_refused() -> None:
    block = {"type": "redacted_thinking", "data": "x"}
    pieces = (
        event("content_block_start", index=at, content_block=block) for at in itertools.count()
    )
    assert error_of(itertools.chain([begin()], pieces)).code is FailureCode.PROVIDER_PROTOCOL


@pytest.mark.parametrize(
    "piece",
    [
        event("ping", padding="x" * 100_000),
        delta(type="citations_delta", citation={"cited_text": "x" * 100_000}),
    ],
)
def test_what_says_nothing_has_a_bound(piece: bytes) -> None:
    opened = open_block(type="text", text="")
    pieces = itertools.chain([begin(), opened], itertools.repeat(piece, 1000))
    assert error_of(pieces).code is FailureCode.PROVIDER_PROTOCOL
    assert "says nothing" in str(error_of([begin(), opened, *[piece] * 1000]))

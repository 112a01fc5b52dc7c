"""Calls of tools, put together from pieces as unlike as servers send them."""

import itertools
import json
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoin.shared.errors import ProviderError
from rejoin.shared.events import FailureCode, FinishReason
from rejoin.worker.providers import openai_tool_calls
from rejoin.worker.providers.base import (
    Chunk,
    FinishChunk,
    TextChunk,
    ToolCall,
    ToolCallChunk,
    WorkingChunk,
)
from rejoin.worker.providers.chunk_json import NoChunk
from rejoin.worker.providers.openai_chunks import Completion
from rejoin.worker.providers.openai_tool_calls import ToolCalls
from tests.support.provider_script import choice, sse

Piece = dict[str, object]
BERLIN, PARIS = '{"city":"Berlin"}', '{"city":"Paris"}'


def piece(index: int | None, call_id: str | None, name: str | None, arguments: str | None) -> Piece:
    """What of a call one delta has; a None is left out."""
    function = {"name": name, "arguments": arguments}
    outer = {"index": index, "id": call_id, "type": "function"}
    return {
        **{key: value for key, value in outer.items() if value is not None},
        "function": {key: value for key, value in function.items() if value is not None},
    }


def put_together(*pieces: object, taken: Sequence[str] = ()) -> list[ToolCallChunk]:
    calls = ToolCalls(taken)
    for one in pieces:
        calls.feed([one])
    return calls.end()


def told(chunks: list[ToolCallChunk]) -> list[tuple[str, object]]:
    return [(chunk.call.name, chunk.call.arguments.get("city")) for chunk in chunks]


def read(*events: bytes, tools: bool = True) -> list[Chunk]:
    """What they say, but for the work in between."""
    completion = Completion(calls=ToolCalls() if tools else None)
    chunks = [chunk for event in events for chunk in completion.feed(event)]
    return [chunk for chunk in [*chunks, *completion.end()] if not isinstance(chunk, WorkingChunk)]


def delta(*pieces: Piece, **members: object) -> bytes:
    return sse({"choices": choice({"tool_calls": list(pieces), **members})})


def finish(reason: str) -> bytes:
    return sse({"choices": choice({}, reason)})


TWO = [("weather", "Berlin"), ("weather", "Paris")]


@pytest.mark.parametrize(
    "pieces",
    [
        [piece(0, "a", "weather", BERLIN), piece(1, "b", "weather", PARIS)],
        [piece(0, "a", "weather", BERLIN), piece(0, "b", "weather", PARIS)],
        [piece(None, "a", "weather", BERLIN), piece(None, "b", "weather", PARIS)],
        [piece(None, None, "weather", BERLIN), piece(None, None, "weather", PARIS)],
        [piece(0, None, "weather", BERLIN), piece(0, None, "weather", PARIS)],
        [piece(0, "", "weather", BERLIN), piece(0, "", "weather", PARIS)],
        [piece(0, None, "weather", BERLIN), piece(1, None, "weather", PARIS)],
        [piece(0, "a", "weather", BERLIN), piece(1, "a", "weather", PARIS)],
        [piece(1, "a", "weather", BERLIN), piece(5, "b", "weather", PARIS)],
    ],
    ids=[
        "as OpenAI has it", "index 0 for every call", "no index", "neither index nor id",
        "index 0 and no id", "index 0 and an empty id", "no id", "one id twice", "odd indexes",
    ],
)  # fmt: skip
def test_two_calls_are_two(pieces: list[Piece]) -> None:
    chunks = put_together(*pieces)
    assert told(chunks) == TWO
    assert len({chunk.call.tool_call_id for chunk in chunks}) == 2


@pytest.mark.parametrize(
    "heads",
    [
        ({"index": 0}, {"index": 1}),
        ({"index": 0, "id": "a"}, {"index": 1, "id": "b"}),
        ({"id": "a"}, {"id": "b"}),
    ],
    ids=["by index", "by both", "by id"],
)
def test_pieces_join_the_call_that_they_are_of(heads: tuple[Piece, Piece]) -> None:
    first = piece(0, "a", "weather", '{"city":')
    second = piece(1, "b", "weather", '{"city":')
    one, two = ({**head, "function": {"arguments": said}} for head, said in
                zip(heads, ('"Berlin"}', '"Paris"}'), strict=True))  # fmt: skip
    assert told(put_together(first, one, second, two)) == TWO


def test_pieces_without_an_index_go_on_with_the_last_call() -> None:
    parts = [piece(None, "a", "weather", ""), *(piece(None, None, None, c) for c in BERLIN)]
    assert told(put_together(*parts)) == [("weather", "Berlin")]


def test_calls_whose_pieces_come_in_turns_are_told_apart_by_index() -> None:
    heads = [piece(0, "a", "weather", ""), piece(1, "b", "weather", "")]
    turns = [
        piece(place, None, None, said)
        for pair in itertools.zip_longest(BERLIN, PARIS, fillvalue="")
        for place, said in enumerate(pair)
    ]
    assert told(put_together(*heads, *turns)) == TWO


def test_an_id_that_comes_later_is_the_calls_own() -> None:
    chunks = put_together(piece(0, None, "weather", ""), piece(0, "a", None, BERLIN))
    assert [chunk.call for chunk in chunks] == [ToolCall("a", "weather", {"city": "Berlin"})]


def test_a_name_repeated_with_each_piece_is_one_call() -> None:
    cut = [piece(0, "a", "weather", c) for c in BERLIN]
    assert told(put_together(*cut)) == [("weather", "Berlin")]
    nameless = [piece(None, None, "weather", c) for c in BERLIN]
    assert told(put_together(*nameless)) == [("weather", "Berlin")]


def test_an_id_that_an_earlier_call_of_the_message_has_is_replaced() -> None:
    (chunk,) = put_together(piece(0, "call_0", "weather", BERLIN), taken=["call_0"])
    assert chunk.call.tool_call_id not in ("", "call_0")


@pytest.mark.parametrize("arguments", [None, "", " \n", "{}"])
def test_no_arguments_are_an_empty_object(arguments: str | None) -> None:
    assert put_together(piece(0, "a", "now", arguments)) == [
        ToolCallChunk(ToolCall("a", "now", {}))
    ]


def test_arguments_that_are_an_object_already_are_taken() -> None:
    whole = {"id": "a", "function": {"name": "weather", "arguments": {"city": "Berlin"}}}
    assert told(put_together(whole)) == [("weather", "Berlin")]


@pytest.mark.parametrize("said", ['{"city":"Ber', "[1]", '"Berlin"', "null", "[" * 100_000])
def test_arguments_that_are_no_object_are_sent_as_they_came(said: str) -> None:
    assert put_together(piece(0, "a", "weather", said)) == [
        ToolCallChunk(ToolCall("a", "weather", {}), broken=said)
    ]


@pytest.mark.parametrize("pieces", ["x", {}, [None], [{"function": {"arguments": 7}}]])
def test_what_is_no_call_is_no_chunk(pieces: object) -> None:
    with pytest.raises(NoChunk):
        ToolCalls().feed(pieces)


def test_a_call_without_a_name_is_an_error() -> None:
    with pytest.raises(ProviderError, match="name") as caught:
        put_together(piece(0, "a", None, BERLIN))
    assert caught.value.code == FailureCode.PROVIDER_PROTOCOL


def test_arguments_without_an_end_are_refused_before_they_fill_the_memory() -> None:
    with pytest.raises(ProviderError, match="no end"):
        put_together(*(piece(0, "a", "x", "y" * 1_000_000) for _ in range(20)))


def test_calls_without_an_end_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openai_tool_calls, "MOST_CALLS", 3)
    with pytest.raises(ProviderError, match="no end"):
        put_together(*(piece(n, str(n), "x", "{}") for n in range(4)))


@given(
    st.lists(
        st.tuples(st.sampled_from(["a", "b"]), st.dictionaries(st.text(), st.integers())),
        min_size=1,
        max_size=4,
    ),
    st.integers(1, 7),
)
def test_any_calls_cut_anywhere_are_the_same_calls(
    asked: list[tuple[str, dict[str, int]]], size: int
) -> None:
    pieces = []
    for place, (name, arguments) in enumerate(asked):
        text = json.dumps(arguments)
        pieces.append(piece(place, f"id{place}", name, ""))
        pieces += [
            piece(place, None, None, text[at : at + size]) for at in range(0, len(text), size)
        ]
    assert put_together(*pieces) == [
        ToolCallChunk(ToolCall(f"id{place}", name, arguments))
        for place, (name, arguments) in enumerate(asked)
    ]


CALL = ToolCallChunk(ToolCall("a", "weather", {"city": "Berlin"}))


def test_calls_are_told_once_they_are_whole_and_before_the_end() -> None:
    said = delta(piece(0, "a", "weather", BERLIN), content="Wait.")
    end = FinishChunk(FinishReason.TOOL_CALLS)
    assert read(said, finish("tool_calls")) == [TextChunk("Wait."), CALL, end]


def test_each_piece_of_a_call_says_that_the_model_is_at_work() -> None:
    completion = Completion(calls=ToolCalls())
    pieces = [delta(piece(0, "a", "weather", "{")), delta({"index": 0})]
    assert [list(completion.feed(one)) for one in pieces] == [[WorkingChunk()]] * 2


def test_a_call_in_the_event_of_the_end_is_told() -> None:
    both = sse(
        {"choices": choice({"tool_calls": [piece(0, "a", "weather", BERLIN)]}, "tool_calls")}
    )
    assert read(both) == [CALL, FinishChunk(FinishReason.TOOL_CALLS)]


def test_an_end_that_only_says_stop_is_one_of_calls_where_there_are_any() -> None:
    end = FinishChunk(FinishReason.TOOL_CALLS, {"finish_reason": "stop"})
    assert read(delta(piece(0, "a", "weather", BERLIN)), finish("stop")) == [CALL, end]


@pytest.mark.parametrize("arguments", ['{"ci', "{", "", None])
def test_a_call_that_the_limit_cut_off_is_broken_and_the_end_says_so(
    arguments: str | None,
) -> None:
    whole = ToolCallChunk(ToolCall("b", "now", {}))
    cut = ToolCallChunk(ToolCall("a", "weather", {}), broken=arguments or "")
    pieces = (piece(0, "b", "now", ""), piece(1, "a", "weather", arguments))
    chunks = read(*map(delta, pieces), finish("length"))
    assert chunks == [whole, cut, FinishChunk(FinishReason.LENGTH)]


def test_an_end_of_calls_without_any_is_a_stop() -> None:
    end = FinishChunk(FinishReason.STOP, {"finish_reason": "tool_calls"})
    assert read(delta(content="Hi"), finish("tool_calls")) == [TextChunk("Hi"), end]


def test_a_call_after_the_end_is_an_error_and_not_lost() -> None:
    with pytest.raises(ProviderError, match="after its finish reason"):
        read(finish("stop"), delta(piece(0, "a", "weather", BERLIN)))


@pytest.mark.parametrize("event", [delta(piece(0, "a", "x", "{}")), finish("tool_calls")])
def test_a_call_where_no_tool_was_offered_is_an_error(event: bytes) -> None:
    with pytest.raises(ProviderError, match="none was offered") as caught:
        read(event, tools=False)
    assert caught.value.code == FailureCode.PROVIDER_PROTOCOL


def test_a_call_of_the_older_kind_is_an_error_though_tools_were_offered() -> None:
    with pytest.raises(ProviderError, match="none was offered"):
        read(sse({"choices": choice({"function_call": {"name": "x"}})}))

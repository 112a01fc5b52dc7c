"""What an accepted request, and the path before it, become for a provider."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoin.shared.content import ImagePart, TextPart
from rejoin.shared.db.rows import StoredCall, StoredMessage, StoredStep
from rejoin.shared.record import Status
from rejoin.shared.request import ResponseFormat, StoredRequest, StoredTurn
from rejoin.worker.context import Window, cut, model_request, turns_of
from rejoin.worker.providers.base import ToolCall, Turn


def test_system_comes_before_every_other_turn() -> None:
    request = StoredRequest(
        "demo/echo", [StoredTurn("system", "a"), StoredTurn("user", "b")], system="first"
    )
    made = model_request(request, "m1")
    assert [(turn.role, turn.content) for turn in made.turns] == [
        ("system", "first"), ("system", "a"), ("user", "b"),
    ]  # fmt: skip


calls = st.builds(ToolCall, st.uuids().map(str), st.just("look"), st.just({"at": 1}))
words = st.text("ab ", min_size=1, max_size=30)


@st.composite
def exchanges(draw: st.DrawFn) -> list[Turn]:
    """A user's turn and its answer, with tools or without, or none."""
    made = [Turn("user", draw(words))]
    if draw(st.booleans()):
        made.insert(0, Turn("system", draw(words)))
    for asked in draw(st.lists(st.lists(calls, min_size=1, max_size=2), max_size=2)):
        made.append(Turn("assistant", draw(words), asked))
        made += [Turn("tool", draw(words), tool_call_id=call.tool_call_id) for call in asked]
    if draw(st.booleans()):
        made.append(Turn("assistant", draw(words)))
    return made


histories = st.lists(exchanges(), max_size=6).map(lambda parts: [turn for p in parts for turn in p])
owns = st.sampled_from(
    [
        [],
        [Turn("user", "the newest")],
        [Turn("system", "so"), Turn("user", "a"), Turn("assistant", "b"), Turn("user", "newest")],
        [Turn("assistant", "I was"), Turn("user", "the newest")],
    ]
)


def size(turns: Sequence[Turn]) -> int:
    return sum(turn.chars for turn in turns)


@given(histories, owns, st.integers(-50, 600))
def test_what_is_cut_is_the_oldest_and_what_is_left_is_in_order(
    path: list[Turn], own: list[Turn], most_chars: int
) -> None:
    left = cut(path, own, most_chars)
    systems = [turn for turn in path if turn.role == "system"]
    others = [turn for turn in path if turn.role != "system"]
    kept = [turn for turn in left if turn.role != "system"]
    assert [turn for turn in left if turn.role == "system"] == systems
    assert kept == others[len(others) - len(kept) :]
    if size(path) + size(own) <= most_chars:
        assert left == path


@given(histories, owns, st.integers(-50, 600))
def test_a_cut_history_begins_with_a_user_and_no_result_comes_without_its_call(
    path: list[Turn], own: list[Turn], most_chars: int
) -> None:
    whole = [*cut(path, own, most_chars), *own]
    called: set[str | None] = set()
    spoken = [turn for turn in whole if turn.role != "system"]
    for turn in spoken:
        called |= {call.tool_call_id for call in turn.tool_calls}
        assert turn.role != "tool" or turn.tool_call_id in called
    if any(turn.role == "user" for turn in path):
        assert spoken[0].role == "user"


@given(histories, owns, st.integers(-50, 600))
def test_the_newest_user_turn_stays_and_no_more_than_fits(
    path: list[Turn], own: list[Turn], most_chars: int
) -> None:
    left = cut(path, own, most_chars)
    asked = [turn for turn in [*path, *own] if turn.role == "user"]
    assert [turn for turn in [*left, *own] if turn.role == "user"][-1:] == asked[-1:]
    if size([*left, *own]) > most_chars:
        # What must stay is too much by itself: nothing beside it is left.
        must = 0 if own and own[0].role != "assistant" else 1
        asked_before = sum(turn.role == "user" for turn in path)
        assert sum(turn.role == "user" for turn in left) == min(must, asked_before)
    elif len(left) < len(path):
        dropped = [turn for turn in path if turn.role != "system"]
        dropped = dropped[: len(path) - len(left)]
        begin = max(at for at, turn in enumerate(dropped) if turn.role == "user")
        assert size([*dropped[begin:], *left, *own]) > most_chars, "it would have had room"


def test_an_answer_may_take_half_of_the_window_unless_the_request_says_how_much() -> None:
    path = [Turn("user", "a" * 80), Turn("assistant", "b" * 80)]
    window = Window(100, 100)  # 400 characters, for both
    roomy = StoredRequest("x/y", [StoredTurn("user", "c" * 40)])
    assert len(model_request(roomy, "m", path=path, window=window).turns) == 3
    tight = StoredRequest("x/y", [StoredTurn("user", "c" * 41)])
    assert len(model_request(tight, "m", path=path, window=window).turns) == 1
    short = StoredRequest("x/y", [StoredTurn("user", "c" * 41)], max_tokens=10)
    assert len(model_request(short, "m", path=path, window=window).turns) == 3


def test_system_schema_and_what_was_shown_since_take_room_too() -> None:
    path = [Turn("user", "a" * 80), Turn("assistant", "b" * 80)]
    plain = StoredRequest("x/y", [StoredTurn("user", "c" * 40)])
    window = Window(50, 0)
    assert len(model_request(plain, "m", path=path, window=window).turns) == 3
    schema: dict[str, object] = {"type": "object"}
    for fuller in (
        replace(plain, system="s"),
        replace(plain, response_format=ResponseFormat("f", schema)),
    ):
        made = model_request(fuller, "m", path=path, window=window)
        assert "a" * 80 not in [turn.content for turn in made.turns]
    told = [Turn("user", "again")]
    made = model_request(plain, "m", path=path, shown=told, window=window)
    assert [turn.content for turn in made.turns] == ["c" * 40, "again"]


def test_an_unknown_window_cuts_nothing() -> None:
    path = [Turn("user", "a" * 9999)]
    made = model_request(StoredRequest("x/y", [StoredTurn("user", "b")]), "m", path=path)
    assert len(made.turns) == 2


def answered(text: str, **fields: Any) -> StoredMessage:
    return StoredMessage("m", "c", "", None, "assistant", 0, text=text, **fields)


def test_an_answers_calls_come_with_their_results_each_step_with_its_own_text() -> None:
    message = answered(
        "let me look. so: it rains",
        steps=(
            StoredStep(13, "a/x", [{"n": 1}]),
            StoredStep(4, "a/x", []),
        ),
        tool_calls=(
            StoredCall("1", 1, "look", {"at": 1}, result={"ok": True}),
            StoredCall("2", 1, "look", {"at": 2}),
            StoredCall("3", 2, "ring", {}, error="nobody there"),
        ),
        status=Status.STREAMING,
    )
    assert turns_of([message], "a/y") == [
        Turn(
            "assistant", "let me look. ", (ToolCall("1", "look", {"at": 1}),), thinking=({"n": 1},)
        ),
        Turn("tool", '{"ok":true}', tool_call_id="1"),
        Turn("assistant", "so: ", (ToolCall("3", "ring", {}),)),
        Turn("tool", "nobody there", tool_call_id="3", is_error=True),
        Turn("assistant", "it rains"),
    ]


def test_a_call_that_nobody_answered_is_left_out_and_its_text_goes_on() -> None:
    message = answered(
        "let me look. gone",
        steps=(StoredStep(13, "a/x", []),),
        tool_calls=(StoredCall("1", 1, "look", {}),),
        status=Status.STREAMING,
    )
    assert turns_of([message], "a/x") == [Turn("assistant", "let me look. gone")]


def test_a_call_of_an_answer_that_has_ended_returned_null_where_it_has_nothing_else() -> None:
    message = answered("", tool_calls=(StoredCall("1", 1, "look", {}),))
    assert turns_of([message], "a/x") == [
        Turn("assistant", "", (ToolCall("1", "look", {}),)),
        Turn("tool", "null", tool_call_id="1"),
    ]


def test_thinking_is_not_shown_to_another_provider() -> None:
    message = answered("four", steps=(StoredStep(4, "a/x", [{"n": 1}]),))
    (same,), (other,) = turns_of([message], "a/y?z=1"), turns_of([message], "b/x")
    assert (same.thinking, other.thinking) == (({"n": 1},), ())
    assert (same.content, other.content) == ("four", "four")


@pytest.mark.parametrize("text", ["", " \n"])
def test_an_answer_without_a_word_is_left_out(text: str) -> None:
    assert turns_of([answered(text)], "a/x") == []


def test_a_user_turn_keeps_its_parts() -> None:
    parts = (TextPart("what is this?"), ImagePart("https://example.org/a.png"))
    asked = StoredMessage("m", "c", "", None, "user", 0, content=parts)
    assert turns_of([asked], "a/x") == [Turn("user", parts)]


def test_an_answer_that_a_request_brought_is_shown_as_it_was_sent() -> None:
    brought = StoredMessage("m", "c", "", None, "assistant", 0, content="I said so")
    assert turns_of([brought], "a/x") == [Turn("assistant", "I said so")]

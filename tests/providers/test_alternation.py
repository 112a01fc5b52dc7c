"""Turns as strict servers want them: the system's first, the others' by turns."""

import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoin.shared.content import ImagePart, TextPart, text_of
from rejoin.worker.providers.alternation import BEGIN, BROKE_OFF, alternating, begun
from rejoin.worker.providers.base import ToolCall, Turn

CALL = ToolCall("call_1", "look", {})
ASKED = Turn("assistant", "", [CALL])
RESULT = Turn("tool", "seen", tool_call_id="call_1")
HI, HELLO = Turn("user", "Hi"), Turn("assistant", "Hello!")


def test_turns_that_alternate_stay_as_they_are() -> None:
    turns = [Turn("system", "s"), HI, ASKED, RESULT, HELLO, HI, ASKED, RESULT]
    made = alternating(turns)
    assert made == turns
    assert all(before is after for before, after in zip(turns, made, strict=True))
    assert alternating([]) == []


def test_what_the_user_said_twice_is_one_turn_with_both() -> None:
    assert alternating([HI, Turn("user", "There?")]) == [Turn("user", "Hi\n\nThere?")]
    picture = (ImagePart("https://example.org/a.png"),)
    assert alternating([HI, Turn("user", picture)]) == [Turn("user", (TextPart("Hi"), *picture))]
    assert alternating([Turn("user", ""), HI]) == [HI]


def test_an_answer_goes_on_in_the_one_that_follows_it() -> None:
    thought, other = {"type": "reasoning.text", "text": "x"}, {"type": "reasoning.text"}
    turns = [
        HI,
        Turn("assistant", "a", thinking=[thought]),
        Turn("assistant", "b", [CALL], thinking=[other]),
        RESULT,
    ]
    joined = Turn("assistant", "a\n\nb", [CALL], thinking=(thought, other))
    assert alternating(turns) == [HI, joined, RESULT]


def test_the_system_has_one_turn_and_it_is_the_first() -> None:
    turns = [HI, Turn("system", "a"), HELLO, Turn("system", "b")]
    assert alternating(turns) == [Turn("system", "a\n\nb"), HI, HELLO]


def test_a_user_who_goes_on_after_a_result_finds_an_answer_in_between() -> None:
    turns = [HI, ASKED, RESULT, HI]
    assert alternating(turns) == [HI, ASKED, RESULT, Turn("assistant", BROKE_OFF), HI]


@pytest.mark.parametrize("order", [begun, alternating])
def test_an_assistant_that_speaks_first_follows_a_users_turn(order: type) -> None:
    system = Turn("system", "s")
    assert order([system, HELLO, HI]) == [system, Turn("user", BEGIN), HELLO, HI]


def said(turns: Sequence[Turn]) -> list[str]:
    return [word for turn in turns for word in text_of(turn.content).split() if word.isdigit()]


@given(st.lists(st.sampled_from(["system", "user", "assistant"]), max_size=9))
def test_whatever_the_order_the_roles_alternate_and_every_word_is_kept(roles: list[str]) -> None:
    turns = [Turn(role, str(number)) for number, role in enumerate(roles)]
    made = alternating(turns)
    others = [turn for turn in turns if turn.role != "system"]
    systems = [turn for turn in turns if turn.role == "system"]
    assert said(made) == said([*systems, *others])
    rest = [turn.role for turn in made if turn.role != "system"]
    assert all(before != after for before, after in itertools.pairwise(rest))
    assert rest[:1] in ([], ["user"])
    assert [turn.role for turn in made].index("system") == 0 if systems else True

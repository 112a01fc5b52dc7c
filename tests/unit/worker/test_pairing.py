"""What turns become before a provider sees them: whatever came, no server refuses it."""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rejoin.shared.content import Content, FilePart, ImagePart, TextPart, text_of
from rejoin.worker.pairing import INTERRUPTED, mended
from rejoin.worker.providers import anthropic_request
from rejoin.worker.providers.alternation import alternating
from rejoin.worker.providers.base import ModelRequest, Tool, ToolCall, Turn
from rejoin.worker.providers.ollama import OllamaProvider
from rejoin.worker.providers.openai import OpenAIProvider
from rejoin.worker.providers.openrouter import OpenRouterProvider
from tests.support.pairing_rules import RULES

HI, HELLO = Turn("user", "Hi"), Turn("assistant", "Hello!")
LOOK = ToolCall("call_1", "look", {"at": 1})
LISTEN = ToolCall("call_2", "listen", {})
NOW = Tool("now", "The time.", {"type": "object"})
PICTURE = ImagePart("data:image/png;base64,iVBORw0KGgo=")
PAPER = FilePart("a.txt", "data:text/plain;base64,YQ==")
SIGNED: Final = {"type": "thinking", "thinking": "So.", "signature": "s"}
DETAIL: Final = {"type": "reasoning.text", "text": "So."}


def asked(*calls: ToolCall) -> Turn:
    return Turn("assistant", "", calls)


def result(call_id: str, said: Content = "seen") -> Turn:
    return Turn("tool", said, tool_call_id=call_id)


def closed(call_id: str) -> Turn:
    return Turn("tool", INTERRUPTED, tool_call_id=call_id, is_error=True)


def mend(*turns: Turn) -> list[Turn]:
    return list(mended(ModelRequest("m", turns)).turns)


def test_a_request_with_nothing_to_mend_is_the_same_object() -> None:
    both = asked(LOOK, LISTEN)
    turns = [Turn("system", "s"), HI, both, result("call_1"), result("call_2"), HELLO, HI]
    request = ModelRequest("m", turns)
    assert mended(request) is request


def test_a_call_without_a_result_gets_one_that_says_so() -> None:
    both = asked(LOOK, LISTEN)
    assert mend(HI, both) == [HI, both, closed("call_1"), closed("call_2")]
    assert mend(HI, both, result("call_2"), HI) == [
        HI, both, closed("call_1"), result("call_2"), HI,
    ]  # fmt: skip


def test_a_result_that_came_late_goes_behind_its_call() -> None:
    assert mend(asked(LOOK), HI, result("call_1")) == [asked(LOOK), result("call_1"), HI]


def test_a_result_of_no_call_is_left_out() -> None:
    assert mend(HI, result("call_9"), HELLO) == [HI, HELLO]
    assert mend(result("call_1"), asked(LOOK), result("call_1", "seen")) == [
        asked(LOOK), result("call_1", "seen"),
    ]  # fmt: skip


def test_a_second_result_of_a_call_is_left_out() -> None:
    turns = [asked(LOOK), result("call_1", "first"), result("call_1", "second"), HI]
    assert mend(*turns) == [asked(LOOK), result("call_1", "first"), HI]


def test_calls_of_one_id_get_one_each_and_keep_their_results() -> None:
    again = replace(LOOK, arguments={"at": 2})
    made = mend(asked(LOOK, again), result("call_1", "a"), result("call_1", "b"), HI,
                asked(LOOK), result("call_1", "c"))  # fmt: skip
    pairs = [(turn.tool_call_id, turn.content) for turn in made if turn.role == "tool"]
    assert [said for _, said in pairs] == ["a", "b", "c"]
    ids = [call.tool_call_id for turn in made for call in turn.tool_calls]
    assert ids == [call_id for call_id, _ in pairs]
    assert len(set(ids)) == 3


def test_a_result_is_of_the_newest_call_of_its_id() -> None:
    made = mend(asked(LOOK), HI, asked(LOOK), result("call_1", "new"))
    assert [turn.content for turn in made if turn.role == "tool"] == [INTERRUPTED, "new"]


def test_a_new_id_is_none_that_another_call_has() -> None:
    other = ToolCall("call_1_2", "look", {})
    made = mend(asked(LOOK, LOOK, other))
    assert len({call.tool_call_id for call in made[0].tool_calls}) == 3
    assert made[0].tool_calls[2] is other


@pytest.mark.parametrize(
    ("name", "sent"),
    [("", "unknown"), ("look.at", "look_at"), ("schön", "sch_n"), ("x" * 70, "x" * 64)],
)
def test_a_name_that_no_tool_can_have_is_made_one(name: str, sent: str) -> None:
    made = mend(asked(ToolCall("call_1", name, {})), result("call_1"))
    assert [call.name for call in made[0].tool_calls] == [sent]


@pytest.mark.parametrize("call_id", ["", "a b", "ü", "x" * 65])
def test_an_id_that_no_call_can_have_is_made_one(call_id: str) -> None:
    made = mend(asked(ToolCall(call_id, "look", {})), result(call_id))
    sent = made[0].tool_calls[0].tool_call_id
    assert 0 < len(sent) <= 64
    assert sent.isascii()
    assert made[1] == result(sent)


@pytest.mark.parametrize("said", ["", " \n", (), (TextPart(" "),)])
def test_an_answer_that_says_nothing_is_left_out(said: Content) -> None:
    assert mend(HI, Turn("assistant", said, thinking=[SIGNED]), HI) == [HI, HI]


def test_a_users_turn_without_words_stays() -> None:
    assert mend(Turn("user", "")) == [Turn("user", "")]


@pytest.mark.parametrize("role", ["assistant", "system"])
def test_pictures_are_the_users_alone(role: str) -> None:
    parts = (TextPart("See:"), PICTURE, PAPER)
    (made,) = mend(Turn(role, parts))
    assert text_of(made.content) == "See:\n[an image was here]\n[the file a.txt was here]"
    assert mend(Turn("user", parts)) == [Turn("user", parts)]


def test_a_turn_has_nothing_that_is_another_roles() -> None:
    assert mend(Turn("user", "Hi", [LOOK], "call_1", is_error=True, thinking=[SIGNED])) == [HI]
    assert mend(HI, Turn("assistant", "Hello!", tool_call_id="call_1")) == [HI, HELLO]


def test_what_a_tool_said_is_text() -> None:
    made = mend(asked(LOOK), result("call_1", (TextPart("a"), PICTURE)))
    assert made[1].content == "a\n[an image was here]"


WORDS: Final = st.integers(100, 999).map(lambda number: f"w{number}")
IDS: Final = st.one_of(
    st.sampled_from(["a", "b", "a.1", "a:1", "a_1", "", "ü", "x" * 50, "x" * 64, "y" + "x" * 70]),
    st.text(max_size=5),
)
NAMES: Final = st.one_of(st.sampled_from(["look", "", "a.b", "n" * 80]), st.text(max_size=5))
CALLS: Final = st.builds(ToolCall, IDS, NAMES, st.dictionaries(st.text(max_size=3), st.integers()))
SAID: Final = st.one_of(
    WORDS,
    st.sampled_from(["", " \n", "w1 "]),
    st.lists(
        st.one_of(st.builds(TextPart, st.one_of(WORDS, st.just(""))), st.just(PICTURE)),
        min_size=1,
        max_size=3,
    ).map(tuple),
)
THOUGHTS: Final = st.sampled_from([(), (SIGNED,), (DETAIL,), (SIGNED, DETAIL)])
TURNS: Final = st.lists(
    st.one_of(
        st.builds(Turn, st.sampled_from(["user", "system"]), SAID),
        st.builds(
            lambda said, calls, thinking: Turn("assistant", said, calls, thinking=thinking),
            SAID,
            st.lists(CALLS, max_size=3).map(tuple),
            THOUGHTS,
        ),
        st.builds(lambda call_id, said: Turn("tool", said, tool_call_id=call_id), IDS, SAID),
        st.builds(Turn, st.just("user"), SAID, st.lists(CALLS, max_size=1), IDS),
    ),
    max_size=12,
)

Made = dict[str, Any]
COMPATIBLE: Final = OpenAIProvider({"OPENAI_BASE_URL": "http://127.0.0.1:1/v1"})


def ordered(request: ModelRequest) -> Made:
    """The body for a server that insists on the order of roles."""
    return COMPATIBLE.body(replace(request, turns=alternating(request.turns)))


BODIES: dict[str, Callable[[ModelRequest], Made]] = {
    "openai": OpenAIProvider({"OPENAI_BASE_URL": "https://api.openai.com/v1"}).body,
    "compatible": ordered,
    "openrouter": OpenRouterProvider({"OPENROUTER_API_KEY": "k"}).body,
    "ollama": OllamaProvider({}).body,
    "anthropic": anthropic_request.body,
}


@pytest.mark.parametrize("wire", BODIES)
@pytest.mark.parametrize("model", ["claude-haiku-4-5", "claude-opus-5-5"])
@settings(max_examples=60, deadline=None)
@given(turns=TURNS, tools=st.sampled_from([(), (NOW,)]), effort=st.sampled_from([None, "high"]))
def test_whatever_the_turns_no_server_refuses_them(
    wire: str, model: str, turns: list[Turn], tools: Sequence[Tool], effort: str | None
) -> None:
    # Somebody asks: the API takes no message without a user's turn.
    request = ModelRequest(model, [HI, *turns], tools=tools, reasoning_effort=effort)
    made = BODIES[wire](mended(request))
    assert RULES[wire](json.loads(json.dumps(made))) is None


def words_of(turns: Sequence[Turn], role: str) -> Iterator[str]:
    for turn in turns:
        if turn.role == role:
            yield from re.findall(r"\bw\d+", text_of(turn.content))


@given(TURNS)
def test_every_word_and_every_pair_is_kept_in_order(turns: list[Turn]) -> None:
    request = mended(ModelRequest("m", turns))
    made = request.turns
    for role in ("user", "assistant", "system"):
        assert list(words_of(made, role)) == list(words_of(turns, role))
    calls = [call for turn in turns if turn.role == "assistant" for call in turn.tool_calls]
    kept = [call for turn in made for call in turn.tool_calls]
    assert [call.arguments for call in kept] == [call.arguments for call in calls]
    assert mended(request) is request


PAIRS: Final = st.lists(
    st.tuples(
        st.lists(st.tuples(CALLS, WORDS), max_size=3, unique_by=lambda pair: pair[0].tool_call_id),
        WORDS,
    ),
    max_size=4,
)


@given(PAIRS)
def test_each_result_stays_with_its_call(
    steps: list[tuple[list[tuple[ToolCall, str]], str]],
) -> None:
    turns = []
    for pairs, word in steps:
        turns.append(Turn("user", word))
        if pairs:
            turns.append(asked(*(call for call, _ in pairs)))
            turns += [result(call.tool_call_id, said) for call, said in pairs]
    made = mend(*turns)
    said = {turn.tool_call_id: turn.content for turn in made if turn.role == "tool"}
    kept = [said[call.tool_call_id] for turn in made for call in turn.tool_calls]
    assert kept == [said for pairs, _ in steps for _, said in pairs]

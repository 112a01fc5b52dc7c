"""What earlier attempts used: reported by finished steps, counted from the text of broken calls."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoin.shared.events import Event, FinishReason, Reasoning, Reset, Start, Step, Text, Usage
from rejoin.shared.fold import fold
from rejoin.shared.frames import Frame, encode
from rejoin.shared.ids import EventId
from rejoin.shared.request import StoredRequest, StoredTurn
from rejoin.shared.spent import estimated, spent_of, total

REQUEST = StoredRequest("demo/echo", [StoredTurn("system", "1234"), StoredTurn("user", "5678")])
START = Start("m", "c", "demo/echo", 1, "")
REPORTED = Usage(10, 20, 5, 1, "0.002")

counts = st.integers(0, 10**6)
costs = st.none() | st.decimals(0, 100, places=4).map(str)
usages = st.builds(Usage, counts, counts, counts, counts, costs, st.booleans())


def log(*entries: Event | tuple[Event, bytes]) -> list[Frame]:
    """Frames; a `reset` begins the next attempt."""
    frames, attempt, sequence = [], 1, 0
    for entry in entries:
        event, private = entry if isinstance(entry, tuple) else (entry, b"")
        if isinstance(event, Reset):
            attempt, sequence = attempt + 1, 0
        event_id = EventId(attempt, sequence)
        frames.append(Frame(event_id, encode(event_id, event), private))
        sequence += 1
    return frames


def reset(after: str | None = None) -> Reset:
    return Reset(after, 2, "demo/echo", "takeover")


def step() -> tuple[Event, bytes]:
    return Step(1, FinishReason.STOP), f'{{"usage":{REPORTED.json()}}}'.encode()


@pytest.mark.parametrize("frames", [log(), log(START), log(START, reset(), reset())])
def test_attempts_that_got_nothing_used_nothing(frames: list[Frame]) -> None:
    assert spent_of(fold(frames), REQUEST) is None


def test_a_call_that_broke_off_is_counted_from_its_text() -> None:
    frames = log(START, Reasoning("1234"), Text("12345678"), Text("9"))
    assert spent_of(fold(frames), REQUEST) == Usage(2, 4, 1, 0, None, estimated=True)


def test_what_was_taken_back_is_billed_all_the_same_and_once_for_each_call() -> None:
    frames = log(START, Text("1234"), reset(), Text("1234"), reset("2-1"), Text("1234"))
    assert spent_of(fold(frames), REQUEST) == Usage(6, 3, 0, 0, None, estimated=True)


def test_a_finished_step_is_as_it_was_reported() -> None:
    assert spent_of(fold(log(START, Text("1234"), step())), REQUEST) == REPORTED


def test_steps_and_broken_calls_add_up_without_a_cost() -> None:
    frames = log(START, Text("a"), step(), Text("1234"), reset("1-2"))
    assert spent_of(fold(frames), REQUEST) == Usage(12, 21, 5, 1, None, estimated=True)


def test_a_request_that_is_gone_leaves_the_output_alone() -> None:
    assert spent_of(fold(log(START, Text("1234"))), None) == Usage(0, 1, estimated=True)


@given(usages, usages)
def test_a_total_does_not_depend_on_the_order(one: Usage, other: Usage) -> None:
    assert total(one, other) == total(other, one)


@given(usages, usages)
def test_a_total_loses_no_token_and_knows_no_cost_that_a_part_does_not(
    one: Usage, other: Usage
) -> None:
    both = total(one, other)
    assert both.input_tokens == one.input_tokens + other.input_tokens
    assert both.output_tokens == one.output_tokens + other.output_tokens
    assert both.estimated == (one.estimated or other.estimated)
    if Usage() not in (one, other):
        assert (both.cost_usd is None) == (one.cost_usd is None or other.cost_usd is None)


@given(st.lists(usages, max_size=5))
def test_nothing_adds_nothing(parts: list[Usage]) -> None:
    spent: Usage | None = None
    for part in parts:
        spent = total(total(spent, Usage()), part)
    plain: Usage | None = None
    for part in parts:
        plain = total(plain, part)
    assert spent == plain


def test_an_estimate_rounds_up() -> None:
    assert [estimated(n, 0, 0).input_tokens for n in (0, 1, 4, 5)] == [0, 1, 1, 2]

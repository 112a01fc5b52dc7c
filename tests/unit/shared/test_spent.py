"""What earlier attempts used: reported by finished steps, counted from the text of broken calls."""

from dataclasses import asdict, replace
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoin.shared.events import (
    Done,
    Event,
    FinishReason,
    Reasoning,
    Reset,
    Retry,
    Start,
    Step,
    Text,
    Usage,
)
from rejoin.shared.fold import fold
from rejoin.shared.frames import Frame, encode
from rejoin.shared.ids import EventId
from rejoin.shared.record import Handed, Record, Status
from rejoin.shared.request import StoredRequest, StoredTurn
from rejoin.shared.spent import (
    attempts_of,
    estimated,
    guessed,
    less,
    seen_of,
    spent_of,
    take_over,
    total,
    unseen_of,
)
from rejoin.shared.tool_events import ToolCall

MINI = "openai/gpt-4o-mini"  # 0.15 dollars a million tokens in, 0.6 out
REQUEST = StoredRequest("script/x", [StoredTurn("system", "1234"), StoredTurn("user", "5678")])
START = Start("m", "c", "script/x", 1, "")
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
            event = replace(event, attempt=attempt)
        event_id = EventId(attempt, sequence)
        frames.append(Frame(event_id, encode(event_id, event), private))
        sequence += 1
    return frames


def reset(after: str | None = None, model: str = "script/x") -> Reset:
    return Reset(after, 2, model, "takeover")


def noted(event: Event, used: Usage = REPORTED) -> tuple[Event, bytes]:
    return event, f'{{"usage":{used.json()}}}'.encode()


def waits() -> Retry:
    return Retry("rate_limited", 5.0)


def record(handed: Handed | None = None) -> Record:
    return Record(
        "m", "o", "c", "script/x", 0, Status.STREAMING, 1, None, False, 0, None, handed=handed
    )


def step() -> tuple[Event, bytes]:
    return noted(Step(1, FinishReason.STOP))


@pytest.mark.parametrize("frames", [log(), log(START), log(START, waits())])
def test_a_message_that_called_nobody_used_nothing(frames: list[Frame]) -> None:
    assert spent_of(fold(frames), REQUEST) is None


def test_a_call_that_was_lost_before_it_gave_anything_has_read_its_input() -> None:
    message = fold(log(START, reset(), reset(), Text("1234")))
    assert spent_of(message, REQUEST) == Usage(6, 1, estimated=True)
    assert seen_of(message, REQUEST) == {1: None, 2: None, 3: Usage(2, 1, estimated=True)}
    assert [call.model for call in unseen_of(message)] == ["script/x", "script/x"]
    assert guessed(message, []) == {"script/x"}


def test_so_has_one_after_a_step_that_called_tools() -> None:
    stepped = noted(Step(1, FinishReason.TOOL_CALLS))
    frames = log(START, Text("1234"), stepped, reset("1-2"))
    assert spent_of(fold(frames), REQUEST) == total(REPORTED, Usage(2, estimated=True))


def test_an_attempt_that_has_calls_to_answer_or_only_its_end_to_write_lost_no_call() -> None:
    asked = noted(ToolCall("a", "look", {}))
    for frames in (
        log(START, asked, reset("1-1"), reset("1-1")),
        log(START, Text("1234"), step(), reset("1-2"), reset("1-2")),
    ):
        assert spent_of(fold(frames), REQUEST) == REPORTED


def test_a_call_that_waits_or_was_parked_is_not_one_that_was_lost() -> None:
    assert spent_of(fold(log(START, waits(), reset(), waits())), REQUEST) is None


def test_a_start_and_the_reset_directly_after_it_begin_one_attempt() -> None:
    first = log(START)
    twin = Frame(EventId(1, 1), encode(EventId(1, 1), Reset(None, 1, "script/x", "takeover")), b"")
    assert fold([*first, twin]).spending.unseen == []


def test_a_retry_tells_what_the_tries_before_it_used() -> None:
    frames = log(START, noted(Retry("provider_timeout", 1.0)), Text("1234"))
    assert spent_of(fold(frames), REQUEST) == total(REPORTED, Usage(2, 1, estimated=True))


def test_a_note_of_a_later_attempt_tells_of_what_was_lost_before_it_too() -> None:
    message = fold(log(START, reset(), noted(reset())))
    assert spent_of(message, REQUEST) == REPORTED
    assert message.spending.unseen == []


def test_what_a_taker_counted_of_a_lost_call_stands_and_tells_of_no_other() -> None:
    lost = (reset(), f'{{"lost":{REPORTED.json()}}}'.encode())
    message = fold(log(START, reset(), Text("1234"), lost))
    assert seen_of(message, REQUEST) == {1: None, 2: REPORTED, 3: None}
    assert spent_of(message, REQUEST) == total(REPORTED, Usage(2, estimated=True))


def test_an_attempt_that_only_ends_the_message_was_to_call_nothing() -> None:
    for begins in (START, b'{"ends":true}'), (reset("1-1"), b'{"ends":true}'):
        before: list[Event] = [] if begins[0] is START else [START, waits()]
        message = fold(log(*before, begins))
        message.spending.lose()
        assert (unseen_of(message), spent_of(message, REQUEST)) == ([], None)


def test_a_call_that_goes_on_in_a_log_that_was_opened_again_is_one_call() -> None:
    goes_on = (reset("1-1"), b'{"goes_on":true}')
    message = fold(log(START, Text("1234"), goes_on, Text("5678")))
    assert spent_of(message, REQUEST) == Usage(2, 2, estimated=True)


def test_what_a_worker_said_as_it_handed_over_counts_and_not_the_text_it_left() -> None:
    message = fold(log(START, Text("1234")))
    found = record(handed=Handed(1, asdict(REPORTED)))
    assert take_over(message, found, REQUEST) == (REPORTED, None)
    assert spent_of(message, REQUEST) == REPORTED


def test_a_word_of_an_attempt_before_the_last_one_is_in_the_log_already() -> None:
    message = fold(log(START, noted(reset()), Text("1234")))
    found = record(handed=Handed(1, asdict(REPORTED)))
    guess = Usage(2, 1, estimated=True)
    assert take_over(message, found, REQUEST) == (None, guess)
    assert spent_of(message, REQUEST) == total(REPORTED, guess)


def test_a_worker_that_handed_over_before_its_call_made_none() -> None:
    message = fold(log(START))
    take_over(message, record(handed=Handed(1, asdict(Usage()))), REQUEST)
    assert attempts_of(message, REQUEST, None)[0]["usage"] is None
    assert unseen_of(message) == []


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


@given(usages, usages)
def test_what_is_left_of_a_total_without_one_is_the_other(one: Usage, other: Usage) -> None:
    both = total(one, other)
    left = less(both, one)
    assert left.input_tokens == other.input_tokens
    assert left.output_tokens == other.output_tokens
    assert total(left, one).estimated == both.estimated
    if left != Usage() and Usage() not in (one, other) and both.cost_usd is not None:
        assert Decimal(left.cost_usd or 0) == Decimal(other.cost_usd or 0)


def test_no_less_than_nothing_is_left() -> None:
    assert less(Usage(1, 2), Usage(3, 4)) == Usage()
    assert less(Usage(1, 5), Usage(3, 4)) == Usage(0, 1)


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
    assert [estimated(n, 0, 0, model="script/x").input_tokens for n in (0, 1, 4, 5)] == [0, 1, 1, 2]


def test_a_broken_call_costs_what_its_own_attempts_model_costs() -> None:
    frames = log(
        Start("m", "c", MINI, 1, ""), Text("4" * 4000), reset(model="demo/echo"), Text("4")
    )
    # 2 tokens in and 1000 out; the echo's are free
    assert spent_of(fold(frames), REQUEST) == Usage(4, 1001, 0, 0, "0.0006003", estimated=True)


def test_a_known_cost_and_an_unknown_one_make_an_unknown_one() -> None:
    frames = log(Start("m", "c", MINI, 1, ""), Text("4" * 4000), reset(), Text("4"))
    spent = spent_of(fold(frames), REQUEST)
    assert spent is not None
    assert spent.cost_usd is None


def test_what_a_worker_noted_of_its_broken_calls_counts_and_not_their_text() -> None:
    frames = log(START, Text("1234"), noted(reset()), Text("1234"), noted(reset("2-1")))
    assert spent_of(fold(frames), REQUEST) == total(REPORTED, REPORTED)
    assert guessed(fold(frames), fold(frames).spending.calls) == set()


def test_each_attempt_has_the_usage_of_its_own_calls() -> None:
    sum_of_all = Usage(22, 41, 10, 2, None, estimated=True)
    frames = log(
        START, Text("1234"), reset(), reset(), step(), noted(sum_of_all), Done(FinishReason.STOP, 0)
    )
    used = [attempt["usage"] for attempt in attempts_of(fold(frames), REQUEST, "t")]
    twice = total(REPORTED, REPORTED)  # the step, and what its end noted of other calls
    assert used == [asdict(Usage(2, 1, 0, 0, None, estimated=True)), None, asdict(twice)]


def test_an_attempt_whose_call_is_under_way_has_no_usage_yet() -> None:
    (attempt,) = attempts_of(fold(log(START, Text("1234"))), REQUEST, None)
    assert (attempt["usage"], attempt["finished_at"]) == (None, None)


def test_an_end_without_a_note_leaves_the_last_call_to_be_counted_from_its_text() -> None:
    frames = log(
        START, waits(), reset(), Text("1234"), Usage(9, 9), Done(FinishReason.CANCELLED, 4)
    )
    message = fold(frames)
    first, second = attempts_of(message, REQUEST, "t")
    assert (first["usage"], first["finished_at"]) == (None, None)
    assert second["usage"] == asdict(Usage(2, 1, 0, 0, None, estimated=True))
    assert second["finished_at"] == "t"
    assert guessed(message, message.spending.calls) == {"script/x"}


def test_the_usage_of_a_message_with_one_attempt_is_that_attempts() -> None:
    frames = log(START, Text("1234"), Usage(9, 9), Done(FinishReason.CANCELLED, 4))
    (attempt,) = attempts_of(fold(frames), None, "t")
    assert attempt["usage"] == asdict(Usage(9, 9))


def test_a_broken_call_is_counted_with_all_that_its_worker_noted_it_was_shown() -> None:
    told = (Text("1234"), b'{"shown_chars":400}')
    frames = log(START, told, Text("5678"), reset(), Text("12345678"))
    # 100 tokens as noted, and 2 of the request's own where nothing was noted
    assert spent_of(fold(frames), REQUEST) == Usage(102, 4, estimated=True)


def test_a_note_of_what_was_shown_is_of_its_own_call_alone() -> None:
    told = (Text("1234"), b'{"shown_chars":400}')
    frames = log(START, told, step(), Text("1234"))
    assert spent_of(fold(frames), REQUEST) == total(REPORTED, Usage(2, 1, estimated=True))

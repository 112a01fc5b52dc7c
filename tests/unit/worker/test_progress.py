"""How far a message came, by its log; and that it is shown as its history will be."""

import json
from dataclasses import replace

from rejoin.shared.events import Event, FinishReason, Reset, Start, Step, Text, Usage
from rejoin.shared.fold import fold
from rejoin.shared.frames import Frame, encode
from rejoin.shared.history import rows_of
from rejoin.shared.ids import EventId
from rejoin.shared.record import Status
from rejoin.shared.tool_events import ToolCall, ToolError, ToolResult, ToolStart
from rejoin.worker.answered import turns_of_steps
from rejoin.worker.context import turns_of
from rejoin.worker.progress import Called, end_call, progress_of
from rejoin.worker.takeover import called_note, step_note, takeover_of, usage_note
from tests.support.messages import new_record

THINKING = [{"type": "thinking", "signature": "s"}]


def frames(*events: Event | tuple[Event, bytes]) -> list[Frame]:
    """A log of attempt 1."""
    made = []
    for sequence, told in enumerate(events):
        event, private = told if isinstance(told, tuple) else (told, b"")
        event_id = EventId(1, sequence)
        made.append(Frame(event_id, encode(event_id, event), private))
    return made


def asked(call_id: str, **arguments: object) -> ToolCall:
    return ToolCall(call_id, "look", arguments)


def over(number: int, reason: FinishReason = FinishReason.TOOL_CALLS) -> bytes:
    called = Called(number, "", "a/x", reason, THINKING, [])
    return called_note(Usage(1, 1), called)


def ends(number: int) -> tuple[Event, bytes]:
    return Step(number, FinishReason.TOOL_CALLS), step_note(None, "a/x", THINKING)


START = Start("m", "c", "a/x", 1, "")
FIRST = (
    Text("one "),
    asked("1", at=1),
    (asked("2"), over(1)),
    ToolStart("1", "look"),
    ToolStart("2", "look"),
    ToolResult("2", "look", None),
    ToolError("1", "look", "no"),
    ends(1),
)
SECOND = (Text("two "), (asked("3"), over(2)), ToolStart("3", "look"), ToolResult("3", "look", "x"))
LAST = (Text("three"), (Step(3, FinishReason.STOP), usage_note(Usage(1, 1))))


def test_before_its_last_call_a_model_call_is_not_over() -> None:
    progress = progress_of(fold(frames(START, *FIRST[:2])))
    assert progress.present is None
    assert [call.tool_call_id for call in progress.broken] == ["1"]
    assert (progress.begun, progress.text_chars) == (True, 4)


def test_with_its_last_call_it_is_and_says_how() -> None:
    progress = progress_of(fold(frames(START, *FIRST[:1], (asked("2"), over(1)))))
    called = progress.present
    assert called is not None
    assert (called.number, called.text, called.model) == (1, "one ", "a/x")
    assert called.finish_reason is FinishReason.TOOL_CALLS
    assert called.thinking == THINKING
    assert [call.tool_call_id for call in called.open_calls] == ["2"]
    assert progress.call_ids == {"2"}


def test_a_takeover_of_a_step_with_calls_takes_nothing_back() -> None:
    for cut in range(4, len(FIRST) + 1):
        left = takeover_of(fold(frames(START, *FIRST[: cut - 1])))
        assert left.after == left.newest == EventId(1, cut - 1), cut
        assert left.text_chars == 4


def test_a_takeover_after_it_goes_on_with_the_next_model_call() -> None:
    left = takeover_of(fold(frames(START, *FIRST, SECOND[0])))
    assert left.after == EventId(1, 8)
    assert (left.begun, left.text_chars, left.model) == (True, 4, "a/x")
    assert left.progress.present is None
    assert left.progress.open_calls == []


def test_calls_that_were_taken_back_are_none() -> None:
    log = frames(START, *FIRST[:2])
    event_id = EventId(2, 0)
    reset = Reset(None, 2, "a/x", "takeover")
    progress = progress_of(fold([*log, Frame(event_id, encode(event_id, reset))]))
    assert (progress.call_ids, progress.begun) == (set(), False)


def test_why_a_call_is_unfit_is_known_to_a_later_attempt() -> None:
    note = json.dumps({"unfit": "cut off"}).encode()
    (call,) = progress_of(fold(frames(START, (asked("1"), note)))).broken
    assert call.unfit == "cut off"


def test_progress_that_is_kept_up_is_what_the_log_says() -> None:
    kept = progress_of(fold(frames(START, *FIRST[:3])))
    assert kept.present is not None
    by_id = {call.tool_call_id: call for call in kept.present.calls}
    end_call(by_id["2"], ToolResult("2", "look", None))
    end_call(by_id["1"], ToolError("1", "look", "no"))
    assert kept.present.open_calls == []
    kept.finish(kept.present)
    assert kept.steps == progress_of(fold(frames(START, *FIRST))).steps
    assert kept.present is None


def test_a_model_is_shown_the_same_in_the_message_and_later_in_its_conversation() -> None:
    message = fold(frames(START, *FIRST, *SECOND, ends(2), *LAST))
    live = list(turns_of_steps(progress_of(message).steps, "a"))
    record = replace(new_record(model="a/x"), status=Status.DONE)
    assert [turn.role for turn in live] == [
        "assistant", "tool", "tool", "assistant", "tool", "assistant",
    ]  # fmt: skip
    assert live[0].thinking == tuple(THINKING)
    for provider in ("a", "b"):
        (row,) = rows_of(record, None, message)
        live = list(turns_of_steps(progress_of(message).steps, provider))
        assert turns_of([row], f"{provider}/x") == live

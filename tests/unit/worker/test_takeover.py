"""Where a new attempt goes on: after the last finished step, or from nothing."""

import pytest

from rejoin.shared.events import Event, FinishReason, Reset, Start, Step, Text, Usage
from rejoin.shared.fold import fold
from rejoin.shared.frames import Frame, encode
from rejoin.shared.ids import EventId
from rejoin.worker.takeover import Takeover, takeover_of, usage_note

USED = Usage(10, 20, 5, 1, "0.002")


def frame(event_id: str, event: Event, private: bytes = b"") -> Frame:
    parsed = EventId.parse(event_id)
    return Frame(parsed, encode(parsed, event), private)


def start(event_id: str = "1-0") -> Frame:
    return frame(event_id, Start("m", "c", "demo/echo", 1, ""))


def step(event_id: str, reason: FinishReason = FinishReason.STOP, number: int = 1) -> Frame:
    return frame(event_id, Step(number, reason), usage_note(USED))


def reset(event_id: str, after: str | None) -> Frame:
    return frame(event_id, Reset(after, 2, "demo/echo", "takeover"))


def test_an_empty_log_leaves_nothing() -> None:
    assert takeover_of(fold([])) == Takeover(newest=None)


def test_text_of_an_unfinished_step_is_taken_back() -> None:
    left = takeover_of(fold([start(), frame("1-1", Text("one")), frame("1-2", Text("two"))]))
    assert left == Takeover(newest=EventId(1, 2), after=None, text_chars=0)


def test_a_finished_step_stays_with_its_text_and_usage() -> None:
    left = takeover_of(
        fold([start(), frame("1-1", Text("zw\u00f6 😀")), step("1-2"), frame("1-3", Text("x"))])
    )
    assert left == Takeover(
        newest=EventId(1, 3),
        after=EventId(1, 2),
        text_chars=5,
        finish_reason=FinishReason.STOP,
        usage=USED,
    )


@pytest.mark.parametrize("reason", FinishReason)
def test_how_the_step_ended_is_kept(reason: FinishReason) -> None:
    assert takeover_of(fold([start(), step("1-1", reason)])).finish_reason is reason


def test_the_last_of_several_steps_counts() -> None:
    left = takeover_of(
        fold(
            [
                start(),
                frame("1-1", Text("a")),
                step("1-2", FinishReason.TOOL_CALLS, 1),
                frame("1-3", Text("bc")),
                step("1-4", FinishReason.LENGTH, 2),
            ]
        )
    )
    assert (left.after, left.text_chars) == (EventId(1, 4), 3)
    assert left.finish_reason is FinishReason.LENGTH


def test_a_step_that_was_taken_back_is_no_step() -> None:
    left = takeover_of(fold([start(), step("1-1"), reset("2-0", None), frame("2-1", Text("a"))]))
    assert left == Takeover(newest=EventId(2, 1))


def test_text_that_was_taken_back_is_not_counted() -> None:
    left = takeover_of(
        fold(
            [
                start(),
                frame("1-1", Text("gone")),
                reset("2-0", None),
                frame("2-1", Text("kept")),
                step("2-2"),
            ]
        )
    )
    assert (left.after, left.text_chars) == (EventId(2, 2), 4)


def test_a_step_without_a_note_used_nothing_that_is_known() -> None:
    left = takeover_of(fold([start(), frame("1-1", Step(1, FinishReason.STOP))]))
    assert left.usage == Usage()

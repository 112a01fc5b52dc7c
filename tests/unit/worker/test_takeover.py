"""Where a new attempt goes on: after the last finished step, or from nothing."""

import pytest

from rejoin.shared.events import Event, FinishReason, Reasoning, Reset, Start, Step, Text, Usage
from rejoin.shared.fold import fold
from rejoin.shared.frames import Frame, encode
from rejoin.shared.ids import EventId
from rejoin.shared.tool_events import ToolCall as AskedCall
from rejoin.worker.progress import Partial
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


def texts(*said: str) -> list[Frame]:
    return [frame(f"1-{at}", Text(text)) for at, text in enumerate(said, 1)]


def test_text_that_is_gone_on_with_stays_and_is_counted() -> None:
    left = takeover_of(fold([start(), *texts("zw\u00f6 ", "😀")]), goes_on=True)
    assert left == Takeover(newest=EventId(1, 2), after=EventId(1, 2), text_chars=5)
    assert left.progress.partial == Partial("zw\u00f6 😀")
    assert left.begun


def test_the_text_of_several_attempts_is_gone_on_with_as_one() -> None:
    frames = [start(), *texts("one "), reset("2-0", "1-1"), frame("2-1", Text("two "))]
    left = takeover_of(fold([*frames, reset("3-0", "2-1")]), goes_on=True)
    assert (left.after, left.text_chars) == (EventId(3, 0), 8)
    assert left.progress.partial == Partial("one two ")


def test_only_the_text_of_the_unfinished_step_is_gone_on_with() -> None:
    step_of_calls = step("1-2", FinishReason.TOOL_CALLS)
    frames = [start(), *texts("first "), step_of_calls, frame("1-3", Text("second"))]
    left = takeover_of(fold(frames), goes_on=True)
    assert (left.after, left.text_chars, left.finish_reason) == (EventId(1, 3), 12, None)
    assert left.progress.partial == Partial("second")
    assert [step.text for step in left.progress.steps] == ["first "]


def test_thinking_is_noted_of_what_is_gone_on_with_and_alone_it_is_taken_back() -> None:
    thought = [start(), frame("1-1", Reasoning("hm"))]
    left = takeover_of(fold([*thought, frame("1-2", Text("so"))]), goes_on=True)
    assert left.progress.partial == Partial("so", thought=True)
    left = takeover_of(fold(thought), goes_on=True)
    assert (left.after, left.progress.partial) == (None, None)


def test_white_space_alone_is_not_gone_on_with() -> None:
    left = takeover_of(fold([start(), *texts(" \n")]), goes_on=True)
    assert (left.after, left.text_chars, left.progress.partial) == (None, 0, None)


def test_text_before_a_call_that_was_begun_is_not_gone_on_with() -> None:
    call = frame("1-2", AskedCall("a", "look", {}))
    left = takeover_of(fold([start(), *texts("I will look"), call]), goes_on=True)
    assert (left.after, left.text_chars, left.progress.partial) == (None, 0, None)


def test_what_is_not_to_be_gone_on_with_is_no_partial_text() -> None:
    assert takeover_of(fold([start(), *texts("one")])).progress.partial is None

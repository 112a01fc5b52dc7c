"""What a `reset` takes back, held against a model that says it without folding."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from rejoin.shared.events import Done, Event, FinishReason, Reset, Start, Step, Text, Usage, dumps
from rejoin.shared.fold import Message, fold
from rejoin.shared.frames import Frame, encode
from rejoin.shared.ids import EventId

START = Start("m", "c", "demo/echo", 1, "2026-11-21T09:30:00.125Z")


def frame(event_id: str, event: Event, **private: object) -> Frame:
    parsed = EventId.parse(event_id)
    note = dumps(private).encode() if private else b""
    return Frame(parsed, encode(parsed, event), note)


def text(event_id: str, words: str) -> Frame:
    return frame(event_id, Text(words))


def reset(event_id: str, after: str | None) -> Frame:
    return frame(event_id, Reset(after, int(event_id.split("-")[0]), "demo/echo", "takeover"))


def start(event_id: str = "1-0") -> Frame:
    return frame(event_id, START)


def survivors(message: Message) -> list[str]:
    return [str(kept.id) for kept in message.kept]


@dataclass(frozen=True)
class Told:
    """An event of the model: `after` is a reset's, "" where it is none."""

    id: EventId
    kind: str
    after: EventId | None = None

    def takes_back(self, earlier: "Told") -> bool:
        if self.kind == "start":
            return True
        if self.kind != "reset":
            return False
        if self.after is None:
            return earlier.kind != "start"
        return earlier.id > self.after


def standing(log: Sequence[Told], until: int) -> list[Told]:
    """Those of the first `until` events that none of them took back."""
    seen = log[:until]
    return [
        event
        for at, event in enumerate(seen)
        if not any(later.takes_back(event) for later in seen[at + 1 :])
    ]


def has_gap(log: Sequence[Told]) -> bool:
    began = max((at for at, event in enumerate(log) if event.kind == "start"), default=0)
    return any(
        event.kind == "reset"
        and event.after is not None
        and all(old.id != event.after for old in standing(log, at))
        for at, event in enumerate(log)
        if at > began
    )


@st.composite
def logs(draw: st.DrawFn) -> list[Told]:
    """A log as attempts may leave it, with resets that name anything at all."""
    told: list[Told] = []
    attempt = 0
    for _ in range(draw(st.integers(1, 5))):
        attempt += draw(st.integers(1, 3))
        opening = ["start"] if not told else ["reset"]
        if told and draw(st.integers(0, 9)) == 0:
            opening = ["start", "reset"]  # Redis lost the whole log
        kinds = opening + ["text"] * draw(st.integers(0, 3))
        for sequence, kind in enumerate(kinds):
            after = None
            if kind == "reset" and "start" not in kinds:
                known = [event.id for event in told]
                strange = st.builds(EventId, st.integers(1, 9), st.integers(0, 9))
                after = draw(st.none() | st.sampled_from(known) | strange)
            told.append(Told(EventId(attempt, sequence), kind, after))
    return told


def as_frames(log: Sequence[Told]) -> list[Frame]:
    frames = []
    for event in log:
        at = str(event.id)
        if event.kind == "start":
            frames.append(start(at))
        elif event.kind == "reset":
            frames.append(reset(at, None if event.after is None else str(event.after)))
        else:
            frames.append(text(at, f"<{at}>"))
    return frames


@given(logs())
def test_after_any_resets_exactly_what_none_took_back_stands(log: list[Told]) -> None:
    message = fold(as_frames(log))
    assert message.gap == has_gap(log)
    if not message.gap:
        expected = standing(log, len(log))
        assert survivors(message) == [str(event.id) for event in expected]
        assert message.text == "".join(f"<{e.id}>" for e in expected if e.kind == "text")
    assert message.last_event_id == log[-1].id


@given(logs(), st.data())
def test_a_log_folded_in_two_parts_is_the_log_folded_at_once(
    log: list[Told], data: st.DataObject
) -> None:
    frames = as_frames(log)
    at = data.draw(st.integers(0, len(frames)))
    whole, parts = fold(frames), fold(frames[:at])
    for rest in fold_events(frames[at:]):
        parts.add(*rest)
    assert (survivors(parts), parts.text, parts.gap) == (survivors(whole), whole.text, whole.gap)


def fold_events(frames: Sequence[Frame]) -> list[tuple[EventId, str, dict[str, object]]]:
    return [(one.id, one.name, json.loads(one.json)) for one in frames]


def test_a_reset_with_null_takes_back_all_but_start() -> None:
    message = fold([start(), text("1-1", "a"), reset("2-0", None), text("2-1", "b")])
    assert survivors(message) == ["1-0", "2-0", "2-1"]
    assert message.text == "b"


def test_a_reset_after_the_last_event_takes_nothing_back() -> None:
    message = fold([start(), text("1-1", "a"), reset("2-0", "1-1"), text("2-1", "b")])
    assert message.text == "ab"
    assert not message.gap


def test_a_reset_may_name_an_event_of_any_earlier_attempt() -> None:
    frames = [start(), text("1-1", "a"), reset("2-0", "1-1"), text("2-1", "b")]
    message = fold([*frames, reset("5-0", "1-1"), text("5-1", "c")])
    assert message.text == "ac"
    assert not message.gap


def test_a_reset_may_name_an_earlier_reset() -> None:
    frames = [start(), text("1-1", "a"), reset("2-0", "1-1"), text("2-1", "b")]
    message = fold([*frames, reset("3-0", "2-0"), text("3-1", "c")])
    assert survivors(message) == ["1-0", "1-1", "2-0", "3-0", "3-1"]
    assert not message.gap


def test_what_a_reset_took_back_stays_taken_back() -> None:
    frames = [start(), text("1-1", "a"), text("1-2", "b"), reset("2-0", "1-1"), text("2-1", "c")]
    message = fold([*frames, reset("3-0", "2-1")])
    assert message.text == "ac"  # 1-2 is earlier than 2-1, and gone all the same


def test_a_reset_that_names_an_event_that_was_taken_back_is_a_gap() -> None:
    frames = [start(), text("1-1", "a"), reset("2-0", None), reset("3-0", "1-1")]
    assert not fold(frames[:3]).gap
    assert fold(frames).gap


def test_a_reset_that_names_an_event_that_never_came_is_a_gap() -> None:
    assert fold([start(), text("1-1", "a"), reset("2-0", "1-2")]).gap


def test_a_start_replaces_everything_and_mends_the_gap() -> None:
    frames = [start(), text("1-1", "a"), reset("2-0", "1-9")]
    message = fold([*frames, start("7-0"), reset("7-1", None), text("7-2", "b")])
    assert survivors(message) == ["7-0", "7-1", "7-2"]
    assert (message.text, message.gap) == ("b", False)


def test_an_unknown_position_forgets_all_and_the_log_comes_from_its_start() -> None:
    message = fold([start("1-0"), text("1-1", "another's")])
    message.add(None, "reset", {"after": None, "attempt": 1, "reason": "position_unknown"})
    assert message.last_event_id is None
    assert message.text == ""
    assert [kept.name for kept in message.kept] == ["reset"]
    for event_id, name, fields in fold_events([start(), text("1-1", "own")]):
        message.add(event_id, name, fields)
    assert survivors(message) == ["1-0", "1-1"]
    assert message.text == "own"
    assert [attempt["attempt"] for attempt in message.attempts] == [1]


def test_text_and_reasoning_are_apart_and_only_the_last_event_is_an_end() -> None:
    frames = [
        start(),
        text("1-1", "a"),
        frame("1-2", Step(1, FinishReason.STOP), usage={"input_tokens": 3}),
        frame("1-3", Usage(input_tokens=3)),
    ]
    message = fold(frames)
    assert message.end is None
    assert message.usage is not None
    assert message.usage["input_tokens"] == 3
    assert message.named("step")[0].private == {"usage": {"input_tokens": 3}}
    message = fold([*frames, frame("1-4", Done(FinishReason.STOP, 1))])
    assert message.end is not None
    assert message.end.fields == {"finish_reason": "stop", "text_chars": 1}


def test_attempts_tell_who_ran_when_and_why() -> None:
    message = fold(
        [
            frame("1-0", START, worker="w1", at="t1"),
            frame("3-0", Reset(None, 3, "demo/echo", "takeover"), worker="w2", at="t2"),
        ]
    )
    told = [
        (a["attempt"], a["worker"], a["started_at"], a["finished_at"]) for a in message.attempts
    ]
    assert told == [(1, "w1", "t1", "t2"), (3, "w2", "t2", None)]
    assert [attempt["reason"] for attempt in message.attempts] == [None, "takeover"]


def test_a_start_and_its_reset_are_one_attempt() -> None:
    message = fold([frame("4-0", Start("m", "c", "x", 4, ""), worker="w"), reset("4-1", None)])
    assert [(a["attempt"], a["worker"]) for a in message.attempts] == [(4, "w")]


def test_an_attempt_whose_log_was_lost_is_its_resets_models_and_tells_why() -> None:
    fallen = Reset(None, 4, "other/model", "provider_timeout")
    message = fold([frame("4-0", Start("m", "c", "x", 4, ""), worker="w"), frame("4-1", fallen)])
    told = [(a["model"], a["worker"], a["reason"]) for a in message.attempts]
    assert told == [("other/model", "w", "provider_timeout")]


def rejected(event_id: str, model: str = "demo/echo", reason: str = "invalid_output") -> Frame:
    return frame(event_id, Reset(None, EventId.parse(event_id).attempt, model, reason))


def test_an_answer_that_its_model_was_asked_for_again_is_known_until_the_step_is_finished() -> None:
    frames = [start(), text("1-1", "a"), text("1-2", "b"), rejected("2-0"), text("2-1", "c")]
    model = START.model
    assert fold(frames[:3]).rejected == {}
    assert fold(frames).rejected == {model: "ab"}
    assert fold([*frames, reset("3-0", None)]).rejected == {model: "ab"}
    assert fold([*frames, frame("2-2", Step(1, FinishReason.STOP))]).rejected == {}
    assert fold([*frames, start("7-0")]).rejected == {}


def test_only_what_follows_the_last_finished_step_was_rejected() -> None:
    step = frame("1-2", Step(1, FinishReason.STOP))
    message = fold([start(), text("1-1", "a"), step, text("1-3", "b"), rejected("2-0")])
    assert message.rejected == {START.model: "b"}


def test_what_a_fallback_is_asked_instead_of_was_not_its_own() -> None:
    frames = [start(), text("1-1", "a"), rejected("2-0", "other/model")]
    assert fold(frames).rejected == {}
    assert fold([*frames, text("2-1", "b"), rejected("3-0", "other/model")]).rejected == {
        "other/model": "b"
    }

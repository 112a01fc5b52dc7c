"""What an attempt writes first, by what it found."""

import json

from rejoin.shared.events import Done, FinishReason, Reset, Start, Text
from rejoin.shared.fold import fold
from rejoin.shared.frames import Frame, id_of, split
from rejoin.shared.ids import EventId
from rejoin.shared.opening import Entry, frames, opening, position_unknown
from rejoin.shared.record import Record, Status

RECORD = Record(
    message_id="m",
    owner="",
    conversation_id="c",
    model="demo/echo",
    created_at=1_795_253_400_125,
    status=Status.STREAMING,
    attempt=3,
    worker="w",
    cancel_asked=False,
    started_at=None,
    finished_at=None,
)


def opened(attempt: int, newest: str | None = None, after: str | None = None) -> list[Entry]:
    return opening(
        RECORD,
        attempt,
        worker_id="w",
        newest=None if newest is None else EventId.parse(newest),
        after=None if after is None else EventId.parse(after),
        reason="takeover",
    )


def test_the_first_attempt_starts_an_empty_log() -> None:
    ((event, private),) = opened(1)
    assert event == Start("m", "c", "demo/echo", 1, "2026-11-21T09:30:00.125Z")
    assert json.loads(private)["worker"] == "w"


def test_an_attempt_that_finds_events_resets_to_the_last_that_stays() -> None:
    ((event, private),) = opened(3, newest="2-7", after="1-4")
    assert event == Reset("1-4", 3, "demo/echo", "takeover")
    assert json.loads(private)["worker"] == "w"


def test_each_of_its_events_says_that_an_attempt_only_ends_the_message() -> None:
    for newest in EventId(1, 0), None:
        begun = opening(
            RECORD, 2, worker_id="w", newest=newest, after=newest, reason="takeover", ends=True
        )
        assert all(json.loads(private)["ends"] for _, private in begun)


def test_an_attempt_that_keeps_nothing_resets_to_null() -> None:
    ((event, _),) = opened(2, newest="1-7")
    assert event == Reset(None, 2, "demo/echo", "takeover")


def test_a_later_attempt_at_an_empty_log_starts_it_and_resets_to_null() -> None:
    (start, _), (reset, _) = opened(3)
    assert start == Start("m", "c", "demo/echo", 3, "2026-11-21T09:30:00.125Z")
    assert reset == Reset(None, 3, "demo/echo", "takeover")


def test_who_runs_an_attempt_never_leaves_the_server() -> None:
    made = frames(3, 0, opened(3))
    assert all(b'"w"' not in frame.data and b"worker" not in frame.data for frame in made)
    (attempt,) = fold(made).attempts
    assert attempt["worker"] == "w"


def test_frames_are_numbered_without_holes_from_where_they_begin() -> None:
    made = frames(4, 2, [(Text("a"), b""), (Text("b"), b"p"), (Done(FinishReason.STOP, 2), b"")])
    assert [str(frame.id) for frame in made] == ["4-2", "4-3", "4-4"]
    assert [id_of(frame.data) for frame in made] == [b"4-2", b"4-3", b"4-4"]
    assert [frame.private for frame in made] == [b"", b"p", b""]
    assert made[0] == Frame(EventId(4, 2), made[0].data, b"")


def test_an_unknown_position_is_answered_by_a_reset_without_an_id() -> None:
    frame = position_unknown(RECORD)
    name, data = split(frame)
    assert name == b"reset"
    assert json.loads(data) == {
        "after": None,
        "attempt": 3,
        "model": "demo/echo",
        "reason": "position_unknown",
    }
    assert id_of(frame) == b""
    assert b"id:" not in frame
    assert frame.endswith(b"\n\n")


def test_an_unknown_position_is_answered_without_a_record_too() -> None:
    assert json.loads(split(position_unknown(None))[1])["reason"] == "position_unknown"

"""The archive's events and what of them a client lacks, whatever position it brings."""

import json
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from rejoin.api import archive
from rejoin.api.stored_view import lost
from rejoin.shared.db.rows import Fields, Spent, StoredCall, StoredMessage
from rejoin.shared.fold import Message
from rejoin.shared.frames import id_of, split
from rejoin.shared.ids import EventId, new_message_id
from rejoin.shared.record import Status

NUMBERS = st.integers(0, 2**64 - 1)
POSITIONS = st.builds(EventId, st.integers(0, 9), st.integers(0, 9)) | st.builds(
    EventId, NUMBERS, NUMBERS
)
CALLS = st.lists(
    st.builds(
        StoredCall,
        tool_call_id=st.text(max_size=3),
        step=st.just(1),
        name=st.just("look"),
        arguments=st.just({"a": 1}),
        result=st.none() | st.just({"b": 2}),
        error=st.none() | st.just("no"),
    ),
    max_size=3,
)
SPENT = st.builds(
    Spent,
    *[st.integers(0, 9)] * 4,
    cost_usd=st.none() | st.just(Decimal("0.00120")),
    estimated=st.booleans(),
)
ERROR: Fields = {"code": "rate_limited", "message": "slow", "retryable": True, "status": 429}


def row_of(text: str = "all of it", **fields: object) -> StoredMessage:
    """An answer that was saved at its end."""
    plain: Fields = {
        "finish_reason": "stop",
        "attempt": 3,
        "last_event_id": EventId(3, 7),
        "model": "demo/echo",
    }
    return StoredMessage(
        id=new_message_id(),
        conversation_id=new_message_id(),
        owner="me",
        parent_id=None,
        role="assistant",
        created_at=1_763_731_234_567,
        text=text,
        **(plain | fields),  # type: ignore[arg-type]
    )


ROWS = st.builds(
    row_of,
    st.text(max_size=9),
    tool_calls=CALLS.map(tuple),
    usage=st.none() | SPENT,
    error=st.none() | st.just(ERROR),
    last_event_id=st.builds(EventId, st.integers(1, 8), st.integers(0, 9)),
)


def names(frames: list[bytes]) -> list[str]:
    return [split(frame)[0].decode() for frame in frames]


def read(frames: list[bytes]) -> Message:
    """Fold frames as a client does."""
    message = Message()
    for frame in frames:
        name, fields = split(frame)
        event_id = EventId.parse(id_of(frame)) if id_of(frame) else None
        message.add(event_id, name.decode(), json.loads(fields))
    return message


@given(ROWS, POSITIONS)
def test_any_position_gets_exactly_the_rest(row: StoredMessage, position: EventId) -> None:
    whole = archive.after(row, None)
    ids = [EventId.parse(id_of(frame)) for frame in whole]
    rest = archive.after(row, position)
    if position in (row.last_event_id, ids[-1]):
        assert rest == []
    elif position in ids:
        assert rest == whole[ids.index(position) + 1 :]
    else:
        assert rest[1:] == whole
        assert (names(rest)[0], id_of(rest[0])) == ("reset", b"")
        assert json.loads(split(rest[0])[1])["after"] is None


@given(ROWS)
def test_it_is_one_attempt_after_the_logs_last_numbered_without_holes(row: StoredMessage) -> None:
    assert row.last_event_id is not None
    attempt = row.last_event_id.attempt + 1
    ids = [id_of(frame).decode() for frame in archive.after(row, None)]
    assert ids == [f"{attempt}-{sequence}" for sequence in range(len(ids))]


@given(ROWS, POSITIONS)
def test_a_client_of_the_log_has_the_text_once_wherever_it_was(
    row: StoredMessage, position: EventId
) -> None:
    rest = archive.after(row, position)
    whole = archive.after(row, None)
    before = whole[: len(whole) - len(rest)] if len(rest) <= len(whole) else []
    if rest:
        assert read([*before, *rest]).text == row.text


def test_its_events_are_the_messages_in_the_contracts_order() -> None:
    calls = (
        StoredCall("c1", 1, "look", {"at": "x"}, result={"seen": [1]}),
        StoredCall("c2", 1, "run", {}, error="refused"),
    )
    row = row_of("né", tool_calls=calls, usage=Spent(1, 2, 3, 4, Decimal("0.00120"), True))
    frames = archive.after(row, None)
    assert names(frames) == [
        "start", "text", "tool_call", "tool_result", "tool_call", "tool_error", "usage", "done",
    ]  # fmt: skip
    fields = [json.loads(split(frame)[1]) for frame in frames]
    assert fields[0] == {
        "message_id": row.id,
        "conversation_id": row.conversation_id,
        "model": "demo/echo",
        "attempt": 4,
        "created_at": "2025-11-21T13:20:34.567Z",
    }
    assert fields[1:6] == [
        {"text": "né"},
        {"tool_call_id": "c1", "name": "look", "arguments": {"at": "x"}},
        {"tool_call_id": "c1", "name": "look", "result": {"seen": [1]}},
        {"tool_call_id": "c2", "name": "run", "arguments": {}},
        {"tool_call_id": "c2", "name": "run", "error": "refused"},
    ]
    assert fields[6] == {
        "input_tokens": 1, "output_tokens": 2, "reasoning_tokens": 3, "cached_tokens": 4,
        "cost_usd": "0.0012", "estimated": True,
    }  # fmt: skip
    assert fields[7] == {"finish_reason": "stop", "text_chars": 2}


def test_a_failed_one_ends_as_its_log_did() -> None:
    frames = archive.after(row_of("", error=ERROR, finish_reason=None), None)
    assert names(frames) == ["start", "failed"]
    assert json.loads(split(frames[-1])[1]) == ERROR


def test_one_that_redis_lost_fails_later_than_any_attempt_of_its_log() -> None:
    row = lost(row_of("", status=Status.QUEUED, finish_reason=None, last_event_id=None, attempt=0))
    frames = archive.after(row, EventId(86_400_000, 5))
    assert names(frames) == ["reset", "start", "failed"]
    assert json.loads(split(frames[-1])[1])["code"] == "internal"
    assert EventId.parse(id_of(frames[-1])).attempt > 604_800_000

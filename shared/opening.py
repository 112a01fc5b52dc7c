"""The first events of an attempt: `start`, or `reset` where an earlier one left events."""

from collections.abc import Iterable
from dataclasses import asdict

from rejoin.shared.clock import iso, now_ms
from rejoin.shared.events import Event, Reset, Start, Usage, dumps
from rejoin.shared.frames import Frame, encode
from rejoin.shared.ids import EventId
from rejoin.shared.record import Record

Entry = tuple[Event, bytes]  # an event, and JSON for workers alone (or b"")


def opening(
    record: Record,
    attempt: int,
    *,
    worker_id: str,
    newest: EventId | None,
    after: EventId | None,
    reason: str,
    model: str | None = None,
    used: Usage | None = None,
    lost: Usage | None = None,
    goes_on: bool = False,
    ends: bool = False,
) -> list[Entry]:
    """Return the events that open `attempt`.

    `newest` is the log's last event (None: the log is empty), `after` the last one that stays,
    `model` the one that answers now (None: the one that was asked for), `used` what the calls of
    the attempt before used that finished no step, where the caller knows; `lost` what the call
    used that it left in the log, as the caller counted it. `goes_on`: a model call
    that was under way is so still, and breaks off with nothing. `ends`: the attempt only ends the
    message, and calls no model.
    """
    reset = Reset(str(after) if after else None, attempt, model or record.model, reason)
    note: dict[str, object] = {"worker": worker_id, "at": iso(now_ms())}
    if used is not None:
        note["usage"] = asdict(used)
    elif lost is not None:
        note["lost"] = asdict(lost)
    if goes_on:
        note["goes_on"] = True
    if ends:
        note["ends"] = True
    private = dumps(note).encode()
    if newest is not None:
        return [(reset, private)]
    start = Start(
        record.message_id, record.conversation_id, record.model, attempt, iso(record.created_at)
    )
    if attempt == 1:
        return [(start, private)]
    # An empty log behind a claimed attempt: Redis lost it, or its worker died before writing.
    return [(start, private), (reset, b'{"ends":true}' if ends else b"")]


def frames(attempt: int, first: int, entries: Iterable[Entry]) -> list[Frame]:
    """Number and encode events, from sequence `first` on."""
    made = []
    for sequence, (event, private) in enumerate(entries, first):
        event_id = EventId(attempt, sequence)
        made.append(Frame(event_id, encode(event_id, event), private))
    return made


def position_unknown(record: Record | None) -> bytes:
    """The frame for a client whose position is none of this log's: forget all. It has no id."""
    return reset_to_nothing(record.attempt, record.model) if record else reset_to_nothing(0, "")


def reset_to_nothing(attempt: int, model: str) -> bytes:
    """The same frame, where there is no record."""
    reset = Reset(None, attempt, model, "position_unknown")
    return f"event: {reset.name}\ndata: {reset.json()}\n\n".encode()

"""An event as the client gets it: encoded once, by whoever appends it."""

from typing import Final, NamedTuple

from rejoin.shared.events import Event
from rejoin.shared.ids import EventId

END: Final = (b"event: done\n", b"event: failed\n")


class Frame(NamedTuple):
    """One entry of a log: its id, the client's bytes, and JSON for workers alone (or b"")."""

    id: EventId
    data: bytes
    private: bytes = b""

    @property
    def name(self) -> str:
        """The SSE event's name."""
        return split(self.data)[0].decode()

    @property
    def json(self) -> bytes:
        """The event's JSON object, still encoded."""
        return split(self.data)[1]


def encode(event_id: EventId, event: Event) -> bytes:
    """Return the event's frame.

    `data:` comes before `id:`: a client that moves its position on the `id:` line, before the
    blank one (fetch-event-source does), would skip an event that was cut between the two.
    """
    return (
        f"event: {event.name}\ndata: {event.json()}\nid: {event_id[0]}-{event_id[1]}\n\n"
    ).encode()


def numbered(data: bytes, event_id: EventId, private: bytes) -> Frame:
    """Return the event of a frame that `encode` made under another id."""
    event, _, _ = data.rpartition(b"\nid: ")
    return Frame(event_id, b"%b\nid: %b\n\n" % (event, bytes(event_id)), private)


def split(frame: bytes) -> tuple[bytes, bytes]:
    """Return the name and the JSON of a frame that `encode` made."""
    name, data, _ = frame.split(b"\n", 2)
    return name[7:], data[6:]


def id_of(frame: bytes) -> bytes:
    """Return the id of a frame that `encode` made; b"" where it has none."""
    _, _, event_id = frame.rpartition(b"\nid: ")
    return event_id[:-2] if frame.endswith(b"\n\n") and event_id != frame else b""


def is_end(frame: bytes) -> bool:
    """Whether the frame is a `done` or a `failed`."""
    return frame.startswith(END)

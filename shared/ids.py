"""Event ids, `<attempt>-<sequence>`, and message ids, UUIDv7."""

import re
from typing import Final, NamedTuple

import uuid6

# Twenty digits hold every id Redis can (two unsigned 64-bit numbers); no leading zero, so that
# one position has one spelling.
_EVENT_ID: Final = re.compile(rb"(0|[1-9][0-9]{0,19})-(0|[1-9][0-9]{0,19})")
_MESSAGE_ID: Final = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
)


class EventId(NamedTuple):
    """An event's place in its message: it orders as its events do."""

    attempt: int
    sequence: int

    @classmethod
    def parse(cls, text: str | bytes) -> "EventId":
        """Return the id that `text` spells.

        Raises:
            ValueError: it is not of the form `<attempt>-<sequence>`.
        """
        try:
            raw = text.encode("ascii") if isinstance(text, str) else text
        except UnicodeEncodeError:
            raw = b""
        match = _EVENT_ID.fullmatch(raw)
        if match is None:
            raise ValueError("an event id has the form <attempt>-<sequence>, for example 1-0")
        return cls(int(match[1]), int(match[2]))

    def __str__(self) -> str:
        return f"{self.attempt}-{self.sequence}"

    def __bytes__(self) -> bytes:
        return b"%d-%d" % self


def new_message_id() -> str:
    """Return a new id: a UUIDv7 (RFC 9562, 5.7), lower-case, 36 characters."""
    return str(uuid6.uuid7())


def is_message_id(text: str) -> bool:
    """Whether `text` is spelt as our ids are; anything else names no message."""
    return _MESSAGE_ID.fullmatch(text) is not None

"""Reads the JSON of one streamed event: the object, its numbers of tokens."""

import json
from typing import Final

from rejoin.shared.errors import ProviderError
from rejoin.worker.providers import error_objects

# Of one call; sums of it are far from what a database's integers hold.
_MOST_TOKENS: Final = 10**12


class NoChunk(ValueError):
    """An event's data is nothing that the wire format knows."""


def parse_object(payload: bytes) -> dict[str, object]:
    """Return the object; bytes that are no UTF-8 become U+FFFD (WHATWG HTML, 9.2.6).

    Raises:
        NoChunk: it is none.
    """
    try:
        value = json.loads(payload.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        raise NoChunk from None
    if not isinstance(value, dict):
        raise NoChunk
    return value


def count(value: object) -> int:
    """Return a number of tokens; 0 for anything that is none, as what no call could use is."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 0
    return int(value) if 0 <= value <= _MOST_TOKENS else 0


def unasked_tool() -> ProviderError:
    """Return the error for a call of a tool where none was offered."""
    return error_objects.protocol("the model called a tool, but none was offered")

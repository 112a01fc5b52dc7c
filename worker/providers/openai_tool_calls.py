"""Puts the calls of tools together from the pieces that a streamed chat completion sends."""

import json
import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Final

from rejoin.shared.events import dumps
from rejoin.worker.providers import error_objects
from rejoin.worker.providers.base import ToolCall, ToolCallChunk
from rejoin.worker.providers.chunk_json import NoChunk

MOST_CALLS: Final = 1000
MOST_CHARS: Final = 16 * 1024 * 1024  # of all calls of one answer


@dataclass(slots=True)
class _Call:
    call_id: str = ""
    name: str = ""
    pieces: list[str] = field(default_factory=list)

    @property
    def is_whole(self) -> bool:
        """Whether it has all its arguments; what ends otherwise is not put together to see."""
        last = self.pieces[-1].rstrip() if self.pieces else "…"
        return last[-1:] in ("", "}") and self.arguments() is not None

    def arguments(self) -> dict[str, object] | None:
        """The arguments, {} where there are none; None where they are no JSON object."""
        said = "".join(self.pieces)
        if not said.strip():
            return {}
        try:
            value = json.loads(said)
        except (ValueError, RecursionError):
            return None
        return value if isinstance(value, dict) else None


class ToolCalls:
    """The calls of one answer. `taken`: ids that calls before it in the message have."""

    def __init__(self, taken: Collection[str] = ()) -> None:
        self._taken = taken
        self._calls: list[_Call] = []
        self._by_index: dict[int, _Call] = {}
        self.chars = 0  # of names and arguments

    def feed(self, pieces: object) -> None:
        """Take the `tool_calls` of one delta.

        Raises:
            NoChunk: they are no such thing.
            ProviderError: there are too many, or they are too long.
        """
        if not isinstance(pieces, list):
            raise NoChunk
        for piece in pieces:
            if not isinstance(piece, dict):
                raise NoChunk
            self._feed(piece)

    def end(self, *, cut: bool = False) -> list[ToolCallChunk]:
        """Return the calls, each with an id that no other call of the message has.

        `cut`: the answer was cut off, so where the last of them has no arguments it lacks them.

        Raises:
            ProviderError: one names no tool.
        """
        used = set(self._taken)
        chunks = []
        for call in self._calls:
            if not call.name:
                raise error_objects.protocol("the model called a tool without its name")
            call_id = call.call_id
            if not call_id or call_id in used:
                call_id = f"call_{secrets.token_hex(12)}"
            used.add(call_id)
            arguments = call.arguments()
            if cut and call is self._calls[-1] and not arguments:
                arguments = None
            broken = "".join(call.pieces) if arguments is None else None
            chunks.append(ToolCallChunk(ToolCall(call_id, call.name, arguments or {}), broken))
        return chunks

    def _feed(self, piece: Mapping[str, object]) -> None:
        function = piece.get("function")
        said = function if isinstance(function, dict) else {}
        call_id, name, arguments = _text(piece.get("id")), _text(said.get("name")), ""
        match said.get("arguments"):
            case None:
                pass
            case str(text):
                arguments = text
            case dict(whole):
                arguments = dumps(whole)  # Ollama's own API has it so, and servers after it
            case _:
                raise NoChunk
        call = self._call_of(piece.get("index"), call_id, name, arguments)
        call.call_id = call.call_id or call_id
        call.name = call.name or name
        if arguments:
            call.pieces.append(arguments)
        self.chars += len(name) + len(arguments)
        if self.chars > MOST_CHARS or len(self._calls) > MOST_CALLS:
            raise error_objects.protocol("the model's tool calls have no end")

    def _call_of(self, index: object, call_id: str, name: str, arguments: str) -> _Call:
        """The call that a piece belongs to: a new one, that of its index, or the last one.

        An index alone does not tell: Ollama has sent 0 for every call, others send none.
        """
        place = index if isinstance(index, int) and not isinstance(index, bool) else None
        known = self._calls[-1] if self._calls else None
        if place is not None:
            known = self._by_index.get(place)
        if known is None or _begins(known, call_id, name, arguments):
            known = _Call()
            self._calls.append(known)
        if place is not None:
            self._by_index[place] = known
        return known


def _begins(known: _Call, call_id: str, name: str, arguments: str) -> bool:
    """Whether a piece begins another call than the one that it would go on with."""
    if call_id and known.call_id:
        return call_id != known.call_id
    if not name or not known.name:
        return False
    # Without ids: another tool, or the same one again, whole, after a call that is whole.
    return name != known.name or bool(arguments and known.is_whole)


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""

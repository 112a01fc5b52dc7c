"""Calls of tools as a model asks for them: with an id of their own, and arguments that JSON has."""

import re
import secrets
from collections.abc import Collection, Mapping
from typing import Final

from rejoin.shared.events import dumps
from rejoin.shared.tool_calls import CallState
from rejoin.shared.tool_events import ToolCall
from rejoin.worker.providers.base import ToolCallChunk

_ID: Final = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
_MOST_NAME_CHARS: Final = 200
_MOST_SHOWN_CHARS: Final = 200
_DEEPEST: Final = 500  # levels: a request holds them below its own, and Python counts a thousand


class CallNames:
    """Gives each call of a message an id that no other one has: the provider's where it can."""

    def __init__(self, taken: Collection[str] = ()) -> None:
        self._taken = set(taken)

    def take(self, chunk: ToolCallChunk, step: int) -> CallState:
        """Return the call as the log is to have it; `unfit` says what is wrong with it."""
        call = chunk.call
        call_id = call.tool_call_id
        if not _ID.fullmatch(call_id) or call_id in self._taken:
            call_id = f"call_{secrets.token_hex(8)}"
        self._taken.add(call_id)
        arguments, unfit = dict(call.arguments), None
        if chunk.broken is not None:
            arguments, unfit = {}, _unfit(chunk.broken)
        elif _is_deep(arguments):
            arguments, unfit = {}, f"the arguments are nested deeper than {_DEEPEST} levels"
        else:
            try:
                dumps(arguments).encode()
            except (ValueError, RecursionError) as error:  # NaN, half a surrogate pair, …
                arguments, unfit = {}, f"the arguments are not JSON that can be kept: {error}"
        name = _whole(call.name)[:_MOST_NAME_CHARS]
        return CallState(call_id, step, name, arguments, unfit=unfit)


def event_of(call: CallState) -> ToolCall:
    """The event that tells of it."""
    return ToolCall(call.tool_call_id, call.name, call.arguments)


def told_of(call: CallState) -> dict[str, object]:
    """What workers alone are told of it."""
    return {} if call.unfit is None else {"unfit": call.unfit}


def chars_of(call: CallState) -> int:
    """How many characters it counts as, where tokens have to be guessed."""
    return len(call.name) + len(dumps(call.arguments))


def _is_deep(arguments: Mapping[str, object]) -> bool:
    level: list[Collection[object]] = [arguments.values()]
    for _ in range(_DEEPEST):
        inner = [value for values in level for value in values]
        level = [value.values() for value in inner if isinstance(value, dict)]
        level += [value for value in inner if isinstance(value, list)]
        if not level:
            return False
    return True


def _unfit(said: str) -> str:
    if not said.strip():
        return "the answer was cut off before the arguments"
    shown = _whole(said)
    if len(shown) > _MOST_SHOWN_CHARS:
        shown = f"{shown[:_MOST_SHOWN_CHARS]}…"
    return f"the arguments are not a JSON object: {shown}"


def _whole(text: str) -> str:
    # Half a surrogate pair fits no log.
    return text.encode("utf-8", "replace").decode()

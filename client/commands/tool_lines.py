"""What tools do, as lines for a terminal: a call, what it waits for, reports and gives."""

import json
from collections.abc import Mapping
from typing import Final

from rejoin.shared.events import dumps

TOOL_EVENTS: Final = frozenset(
    {"tool_call", "tool_waiting", "tool_start", "data", "tool_result", "tool_error"}
)

_LONGEST_CHARS: Final = 160
_JOINERS: Final = "\u200c\u200d"  # letters and emoji are made with them


class ToolLines:
    """Makes the lines of one message's tools; of two calls of one tool the second is `name#2`."""

    def __init__(self) -> None:
        self._labels: dict[str, str] = {}
        self._calls: dict[str, int] = {}
        self._begun: set[str] = set()

    def line(self, name: str, fields: Mapping[str, object]) -> str | None:
        """Return the line of an event, None where it has none. Feed it every event, in order."""
        if name not in TOOL_EVENTS:
            return None
        call_id = str(fields.get("tool_call_id"))
        if name == "data":
            said = f"{_short(fields.get('name'))}: {_short(fields.get('value'))}"
            label = self._labels.get(call_id)
            return said if label is None else f"{label}: {said}"
        label = self.label(call_id, str(fields.get("name")))
        match name:
            case "tool_call":
                return f"{label} {_short(fields.get('arguments'))}"
            case "tool_start":
                self._begun.add(call_id)
            case "tool_waiting":
                needs = "approval" if fields.get("needs") == "approval" else "its result"
                if call_id in self._begun:
                    needs += " to run again: what it did is unknown"
                return f"{label} waits for {needs} ({_short(call_id)})"
            case "tool_result":
                return f"{label} = {_short(fields.get('result'))}"
            case "tool_error":
                return f"{label} failed: {_short(fields.get('error'))}"
        return None

    def label(self, call_id: str, name: str) -> str:
        """Return what to call a call of the tool of that name."""
        if call_id not in self._labels:
            count = self._calls[name] = self._calls.get(name, 0) + 1
            self._labels[call_id] = shown(name) if count == 1 else f"{shown(name)}#{count}"
        return self._labels[call_id]


def shown(value: object) -> str:
    """Return a value in one line: text as it is, all else as JSON; what is invisible is escaped.

    So what a person consents to cannot hide behind a turned writing direction, say.
    """
    text = value if isinstance(value, str) else dumps(value)
    return "".join(char if _visible(char) else json.dumps(char)[1:-1] for char in text)


def _visible(char: str) -> bool:
    return char.isprintable() or char in _JOINERS


def _short(value: object) -> str:
    text = shown(value)
    return text if len(text) <= _LONGEST_CHARS else f"{text[: _LONGEST_CHARS - 1]}…"

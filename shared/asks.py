"""What a tool call waits for, and what it may be answered, as they are stored."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Self

from rejoin.shared.tool_events import Needs

_EXACT: Final = 2**53  # beyond it a float is no whole number that somebody meant


@dataclass(frozen=True, slots=True)
class Ask:
    """A call that waits: what it needs, which of its askings it is, until when.

    `round` counts from 1; `deadline_ms` is since the epoch.
    """

    tool_call_id: str
    needs: Needs
    round: int
    deadline_ms: int

    def to_json(self) -> str:
        """Encode it, but for its call; the scripts look for the members by their names."""
        return _dumps({"needs": self.needs, "round": self.round, "deadline_ms": self.deadline_ms})

    @classmethod
    def of_json(cls, tool_call_id: str, text: str | bytes) -> Self:
        """Read what `to_json` wrote."""
        fields = json.loads(text)
        return cls(tool_call_id, Needs(fields["needs"]), fields["round"], fields["deadline_ms"])


class Kind(StrEnum):
    """How a call was answered; each is the name of its member in the JSON."""

    APPROVE = "approve"
    RESULT = "result"
    ERROR = "error"
    TIMEOUT = "timeout"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a call was answered: a bool for `approve`, any JSON for `result`, a text for `error`."""

    kind: Kind
    value: object = True

    def to_json(self) -> str:
        """Encode it, the same for whatever is the same JSON."""
        return _dumps({self.kind.value: _canonical(self.value)})

    @classmethod
    def of_json(cls, text: str | bytes) -> Self:
        """Read what `to_json` wrote."""
        ((kind, value),) = json.loads(text).items()
        return cls(Kind(kind), value)


TIMEOUT: Final = Answer(Kind.TIMEOUT)  # nobody answered until the deadline


def _canonical(value: object) -> object:
    # As api/accept.py compares bodies: 1 and 1.0 are one number, the order of names is none.
    if isinstance(value, dict):
        return {name: _canonical(member) for name, member in value.items()}
    if isinstance(value, list):
        return [_canonical(member) for member in value]
    return (
        int(value)
        if isinstance(value, float) and value.is_integer() and abs(value) < _EXACT
        else value
    )


def _dumps(fields: Mapping[str, object]) -> str:
    return json.dumps(fields, sort_keys=True, separators=(",", ":"))

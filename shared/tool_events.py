"""The events of tools and of what they report, a frozen class each."""

from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar

from rejoin.shared.events import dumps


class Needs(StrEnum):
    """What a call that waits needs: a person's consent, or the client's own result."""

    APPROVAL = "approval"
    RESULT = "result"


@dataclass(frozen=True, slots=True)
class ToolCall:
    """The model asks for a tool, its arguments complete."""

    name: ClassVar[str] = "tool_call"
    tool_call_id: str
    tool: str
    arguments: dict[str, object]

    def json(self) -> str:
        """Encode it; the tool's name is `name` there."""
        return _json(self.tool_call_id, self.tool, {"arguments": self.arguments})


@dataclass(frozen=True, slots=True)
class ToolWaiting:
    """The tool needs a person's consent, or is the client's own to run."""

    name: ClassVar[str] = "tool_waiting"
    tool_call_id: str
    tool: str
    needs: Needs

    def json(self) -> str:
        """Encode it; the tool's name is `name` there."""
        return _json(self.tool_call_id, self.tool, {"needs": self.needs})


@dataclass(frozen=True, slots=True)
class ToolStart:
    """The tool begins to run."""

    name: ClassVar[str] = "tool_start"
    tool_call_id: str
    tool: str

    def json(self) -> str:
        """Encode it; the tool's name is `name` there."""
        return _json(self.tool_call_id, self.tool, {})


@dataclass(frozen=True, slots=True)
class Data:
    """What a tool or an agent reports on its way; `tool_call_id` None: it is of no call."""

    name: ClassVar[str] = "data"
    what: str
    value: object
    tool_call_id: str | None = None

    def json(self) -> str:
        """Encode it; `what` is `name` there."""
        return dumps({"name": self.what, "value": self.value, "tool_call_id": self.tool_call_id})


@dataclass(frozen=True, slots=True)
class ToolResult:
    """A tool returned."""

    name: ClassVar[str] = "tool_result"
    tool_call_id: str
    tool: str
    result: object

    def json(self) -> str:
        """Encode it; the tool's name is `name` there."""
        return _json(self.tool_call_id, self.tool, {"result": self.result})


@dataclass(frozen=True, slots=True)
class ToolError:
    """A tool failed or was refused; the model is told."""

    name: ClassVar[str] = "tool_error"
    tool_call_id: str
    tool: str
    error: object

    def json(self) -> str:
        """Encode it; the tool's name is `name` there."""
        return _json(self.tool_call_id, self.tool, {"error": self.error})


def _json(tool_call_id: str, tool: str, more: dict[str, object]) -> str:
    return dumps({"tool_call_id": tool_call_id, "name": tool} | more)

"""Events of tools for toy logs: a call, what becomes of it, and what the tool reports."""

from typing import Final

from tests.clients.toy_server import Entry

ADD: Final = "call_add"
MULTIPLY: Final = "call_multiply"
CALL: Final = {ADD: "add", MULTIPLY: "multiply"}
START: Final = Entry("1-0", "start", {"attempt": 1})


def tool(event_id: str, what: str, tool_call_id: str, **more: object) -> Entry:
    """The event `tool_…` of one of the calls above."""
    fields: dict[str, object] = {"tool_call_id": tool_call_id, "name": CALL[tool_call_id]}
    return Entry(event_id, f"tool_{what}", fields | more)


def data(event_id: str, name: str, value: object, tool_call_id: str | None = None) -> Entry:
    """What a tool, or (of no call) an agent reports."""
    return Entry(event_id, "data", {"name": name, "value": value, "tool_call_id": tool_call_id})


def text(event_id: str, said: str) -> Entry:
    """Visible text."""
    return Entry(event_id, "text", {"text": said})


def done(event_id: str, reason: str = "stop") -> Entry:
    """The end."""
    return Entry(event_id, "done", {"finish_reason": reason})

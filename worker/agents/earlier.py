"""What earlier runs of an agent did of its calls, also where a `reset` took them back."""

import json
from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import Final

from rejoin.shared.events import dumps
from rejoin.shared.frames import Frame
from rejoin.shared.tool_events import ToolError, ToolResult
from rejoin.worker.calls import Known

# With a `tool_call`, for workers alone: it is an agent's, no model's words. Those that an agent
# asked us to run have ids of `call_id_of`, those that it runs itself have any.
OWN: Final = "own"
ASKED: Final = "asked"

_TOLD: Final = frozenset({"tool_start", "tool_waiting", "tool_result", "tool_error"})


def call_id_of(message_id: str, model: str, step: int, asked: str, time: int) -> str:
    """The id of an agent's call: the same in each run of its step, and that of no other call.

    `asked` is its name and its arguments, asked for the `time`th time in this step.
    """
    said = dumps([message_id, model, step, asked, time])
    return f"call_{sha256(said.encode()).hexdigest()[:16]}"


def note_earlier(log: Iterable[Frame], known: Known) -> None:
    """Add to `known` every call that an agent asked us to run, also those that were taken back."""
    asked: set[str] = set()
    for frame in log:
        name = frame.name
        if name == "tool_call" and frame.private:
            if json.loads(frame.private).get("agent") == ASKED:
                asked.add(str(json.loads(frame.json)["tool_call_id"]))
        elif name in _TOLD:
            fields = json.loads(frame.json)
            if (call_id := str(fields["tool_call_id"])) in asked:
                _note(name, call_id, fields, known)


def _note(name: str, call_id: str, fields: Mapping[str, object], known: Known) -> None:
    tool = str(fields["name"])
    match name:
        case "tool_start":
            known.started.add(call_id)
        case "tool_waiting":  # asked for anew: what became of it before is settled
            known.started.discard(call_id)
        case "tool_result":
            known.ended[call_id] = ToolResult(call_id, tool, fields["result"])
        case _:
            known.ended[call_id] = ToolError(call_id, tool, fields["error"])

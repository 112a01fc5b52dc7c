"""The tool calls of a message so far: which are open, and how far each of them came."""

from dataclasses import dataclass
from typing import Final, cast

from rejoin.shared.events import Fields
from rejoin.shared.fold import Kept, Message
from rejoin.shared.tool_events import Needs

UNKNOWN_OUTCOME: Final = "outcome unknown"  # how the error of a call begins that may have been done


@dataclass(slots=True)
class CallState:
    """One call, in the order of its events.

    `waits` is what it waited for last, `asked` how often it did; `started` whether its tool began
    to run after that, `again` whether it had begun before that: a worker was lost with it, and
    nobody knows what it did. `ended` is its `tool_result` or `tool_error`, None: it is open.
    `unfit` says why its arguments are none, and no tool is to see them.
    """

    tool_call_id: str
    step: int
    name: str
    arguments: Fields
    waits: Needs | None = None
    asked: int = 0
    started: bool = False
    again: bool = False
    ended: Kept | None = None
    unfit: str | None = None

    @property
    def result(self) -> object | None:
        """What the tool returned; None too where it did not."""
        return None if self.ended is None else self.ended.fields.get("result")

    @property
    def error(self) -> object | None:
        """How it failed; None: it did not."""
        return None if self.ended is None else self.ended.fields.get("error")


def calls_of(message: Message) -> list[CallState]:
    """Return the calls that no `reset` took back, in the order in which the model asked."""
    calls: dict[str, CallState] = {}
    step = 1
    for event in message.kept:
        if event.name == "step":
            step += 1
        elif event.name == "tool_call":
            asked = _asked(event, step)
            calls[asked.tool_call_id] = asked
        elif calls and (call := calls.get(str(event.fields.get("tool_call_id")))) is not None:
            _go_on(call, event)
    return list(calls.values())


def open_calls(message: Message) -> list[CallState]:
    """Return the calls that have neither result nor error."""
    return [call for call in calls_of(message) if call.ended is None]


def _asked(event: Kept, step: int) -> CallState:
    fields, unfit = event.fields, event.private.get("unfit")
    return CallState(
        str(fields["tool_call_id"]),
        step,
        str(fields["name"]),
        cast(Fields, fields["arguments"]),
        unfit=None if unfit is None else str(unfit),
    )


def _go_on(call: CallState, event: Kept) -> None:
    match event.name:
        case "tool_waiting":
            call.waits = Needs(str(event.fields["needs"]))
            call.asked += 1
            call.again = call.again or call.started
            call.started = False
        case "tool_start":
            call.started = True
        case "tool_result" | "tool_error":
            call.ended = event

"""How an open call of a tool begins, or goes on after its worker was lost: run, ask, or fail."""

import logging
from typing import Final, NamedTuple

from rejoin.shared.errors import ToolError
from rejoin.shared.request import ToolDefinition
from rejoin.shared.tool_calls import UNKNOWN_OUTCOME, CallState
from rejoin.shared.tool_events import Needs
from rejoin.worker.tools.base import OnUnknownOutcome, Tool

_LOST: Final = f"{UNKNOWN_OUTCOME}: its worker was lost while it ran"

_log = logging.getLogger(__name__)


class Beginning(NamedTuple):
    """What to do with a call: ask for what it `needs`, fail with `error`, or else run its tool.

    `anew`: it is asked for now, and not since an earlier attempt.
    """

    needs: Needs | None = None
    anew: bool = True
    error: str | None = None


def beginning_of(
    call: CallState, tool: Tool | ToolDefinition | None, *, was_started: bool
) -> Beginning:
    """Return how the call goes on. `was_started`: its tool ran, and nobody knows what it did."""
    if call.unfit is not None:
        return Beginning(error=call.unfit)
    if was_started:
        return _of_unknown_outcome(tool)
    if call.waits is not None:
        return Beginning(needs=call.waits, anew=False)
    if tool is None:
        return Beginning(error=f"there is no tool {call.name}")
    if isinstance(tool, ToolDefinition):
        return Beginning(needs=Needs.RESULT)
    if (refused := _misfit(tool, call)) is not None:
        return Beginning(error=refused)
    return Beginning(needs=Needs.APPROVAL if tool.needs_approval else None)


def _of_unknown_outcome(tool: Tool | ToolDefinition | None) -> Beginning:
    if tool is None or isinstance(tool, ToolDefinition):
        return Beginning(error=_LOST)
    match tool.on_unknown_outcome:
        case OnUnknownOutcome.RETRY:
            return Beginning()
        case OnUnknownOutcome.ASK:
            return Beginning(needs=Needs.APPROVAL)
    return Beginning(error=_LOST)


def _misfit(tool: Tool, call: CallState) -> str | None:
    """Why the tool does not take the arguments; None: it does."""
    try:
        tool.check(call.arguments)
    except ToolError as error:
        return str(error)
    except Exception as error:  # noqa: BLE001  a tool's own bug ends its call alone
        _log.exception("the tool %s could not check its arguments", tool.name)
        return f"the arguments could not be checked: {type(error).__name__}"
    return None

"""How a call goes on: it runs, it is asked about, or it has failed already."""

import pytest

from rejoin.shared.request import ToolDefinition
from rejoin.shared.tool_calls import CallState
from rejoin.shared.tool_events import Needs
from rejoin.worker.beginning import Beginning, beginning_of
from rejoin.worker.tools.base import OnUnknownOutcome
from tests.support.tools import PlainTool

CLIENTS = ToolDefinition("ask", "", {})
ASK, FAIL, RETRY = OnUnknownOutcome.ASK, OnUnknownOutcome.FAIL, OnUnknownOutcome.RETRY


def state(**fields: object) -> CallState:
    call = CallState("c", 1, "look", {})
    for name, value in fields.items():
        setattr(call, name, value)
    return call


@pytest.mark.parametrize(
    ("call", "tool", "beginning"),
    [
        (state(), PlainTool(), Beginning()),
        (state(), PlainTool(needs_approval=True), Beginning(Needs.APPROVAL)),
        (state(), CLIENTS, Beginning(Needs.RESULT)),
        (state(), None, Beginning(error="there is no tool look")),
        (state(unfit="{"), PlainTool(), Beginning(error="{")),
        (state(unfit="{"), CLIENTS, Beginning(error="{")),
        (
            state(arguments={"bad": 1}),
            PlainTool(needs_approval=True),
            Beginning(error="bad is not a parameter"),
        ),
        (state(waits=Needs.RESULT), CLIENTS, Beginning(Needs.RESULT, anew=False)),
        (state(waits=Needs.APPROVAL), PlainTool(), Beginning(Needs.APPROVAL, anew=False)),
    ],
)
def test_of_a_call_that_was_not_started(
    call: CallState, tool: PlainTool | ToolDefinition | None, beginning: Beginning
) -> None:
    assert beginning_of(call, tool, was_started=False) == beginning


@pytest.mark.parametrize("waits", [None, Needs.APPROVAL])
def test_of_one_whose_worker_was_lost_while_it_ran(waits: Needs | None) -> None:
    call = state(waits=waits)
    tools = {policy: PlainTool(on_unknown_outcome=policy) for policy in OnUnknownOutcome}
    begun = {policy: beginning_of(call, tools[policy], was_started=True) for policy in tools}
    assert begun[RETRY] == Beginning()
    assert begun[ASK] == Beginning(Needs.APPROVAL, anew=True)
    for lost in (begun[FAIL], beginning_of(call, None, was_started=True)):
        assert lost.needs is None
        assert str(lost.error).startswith("outcome unknown")

"""A tool whose run is any coroutine function, and a call of it."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from rejoin.worker.tools.base import Call, OnUnknownOutcome, Report


@dataclass
class MadeTool:
    """A tool that does what a test says."""

    does: Callable[[Call], Awaitable[object]]
    timeout_seconds: float = 30.0
    name: str = "made"
    description: str = ""
    parameters: Mapping[str, object] = field(default_factory=dict)
    needs_approval: bool = False
    on_unknown_outcome: OnUnknownOutcome = OnUnknownOutcome.FAIL

    def check(self, arguments: Mapping[str, object]) -> None:
        """Take anything."""

    async def run(self, arguments: Mapping[str, object], call: Call) -> object:
        """Do what the test says."""
        return await self.does(call)


def made_call(report: Report = lambda name, value: None) -> Call:
    """A call like any other."""
    return Call("m", "c", 1, "call_1", {}, report)

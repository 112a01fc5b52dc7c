"""Tools that count what they do, and models that call them."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from rejoin.shared.errors import ToolError
from rejoin.shared.events import FinishReason
from rejoin.worker.providers.base import Chunk, FinishChunk, ToolCall, ToolCallChunk, UsageChunk
from rejoin.worker.tools.base import Call, OnUnknownOutcome
from tests.support.scripted_provider import Line, texts

Act = Callable[[Mapping[str, object], Call], Awaitable[object]]


async def _echo(arguments: Mapping[str, object], call: Call) -> object:
    return dict(arguments)


@dataclass
class PlainTool:
    """A tool that notes each run as `ran`; it returns its arguments unless `act` does otherwise.

    Arguments with `bad` do not fit. `gate`: it waits for that after its effect.
    """

    name: str = "look"
    needs_approval: bool = False
    on_unknown_outcome: OnUnknownOutcome = OnUnknownOutcome.FAIL
    timeout_seconds: float = 60
    act: Act = _echo
    gate: asyncio.Event | None = None
    description: str = "looks"
    parameters: Mapping[str, object] = field(default_factory=lambda: {"type": "object"})
    ran: list[Call] = field(default_factory=list)
    seen: list[Mapping[str, object]] = field(default_factory=list)

    def check(self, arguments: Mapping[str, object]) -> None:
        """Refuse what is bad."""
        if "bad" in arguments:
            raise ToolError("bad is not a parameter")

    async def run(self, arguments: Mapping[str, object], call: Call) -> object:
        """Do it."""
        self.ran.append(call)
        self.seen.append(arguments)
        if self.gate is not None:
            await self.gate.wait()
        return await self.act(arguments, call)

    @property
    def keys(self) -> list[str]:
        """The idempotency keys of its runs."""
        return [call.idempotency_key for call in self.ran]


def call(call_id: str, name: str = "look", **arguments: object) -> ToolCallChunk:
    """A call, as an adapter gives it."""
    return ToolCallChunk(ToolCall(call_id, name, arguments))


def calling(
    *chunks: Chunk,
    words: str = "",
    used: UsageChunk | None = None,
    reason: FinishReason = FinishReason.TOOL_CALLS,
) -> list[Line]:
    """A model call that ends in these calls."""
    usage: list[Line] = [used] if used is not None else []
    return [*(texts(words) if words else []), *chunks, FinishChunk(reason), *usage]

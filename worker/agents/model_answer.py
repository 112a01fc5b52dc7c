"""A model's answer as an agent reads it: piece by piece, and what it came to."""

from collections.abc import AsyncIterator, Mapping

from rejoin.shared.events import FinishReason, Reasoning, Text
from rejoin.worker.providers.base import ToolCall, ToolCallChunk, Turn

Piece = Text | Reasoning


class ModelAnswer:
    """A model's answer: an iterator over its pieces, each of which an agent may yield as it is.

    `text` and `reasoning` are what came so far, `calls` the tools that the model asked for, and
    `finish_reason` why it ended; None: it has not.
    """

    def __init__(self) -> None:
        self.text = ""
        self.reasoning = ""
        self.calls: list[ToolCallChunk] = []
        self.finish_reason: FinishReason | None = None
        self.thinking: list[Mapping[str, object]] = []
        self._pieces: AsyncIterator[Piece] | None = None

    def __aiter__(self) -> AsyncIterator[Piece]:
        """Read it."""
        if self._pieces is None:
            raise RuntimeError("read a model's answer within its `async with`")
        return self._pieces

    def read_by(self, pieces: AsyncIterator[Piece]) -> None:
        """Take what reads it."""
        self._pieces = pieces

    async def whole(self) -> str:
        """Read what is left of it, and return its text."""
        async for _ in self:
            pass
        return self.text

    @property
    def turn(self) -> Turn:
        """It, as a turn of the next call."""
        calls = [
            ToolCall(asked.call.tool_call_id, asked.call.name, asked.call.arguments)
            for asked in self.calls
        ]
        return Turn("assistant", self.text, tuple(calls), thinking=tuple(self.thinking))

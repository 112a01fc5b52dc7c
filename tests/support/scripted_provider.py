"""A provider that plays a script: chunks, pauses, gates, errors, silence until it is stopped."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from rejoin.shared.events import FinishReason
from rejoin.worker.providers.base import (
    Chunk,
    FinishChunk,
    ListedModel,
    ModelRequest,
    TextChunk,
)

SILENCE = "silence"
Line = Chunk | Exception | float | str | asyncio.Event  # an event: go on once it is set


class ScriptedProvider:
    """Each call plays the next script, the last one again and again."""

    def __init__(self, *scripts: Sequence[Line]) -> None:
        self.calls: list[ModelRequest] = []
        self.open = 0
        self.given = 0
        self.goes_on = False
        self._scripts = list(scripts)

    @asynccontextmanager
    async def stream(self, request: ModelRequest) -> AsyncIterator[AsyncIterator[Chunk]]:
        """Play a script; `open` tells whether the call's connection was closed."""
        script = self._scripts[min(len(self.calls), len(self._scripts) - 1)]
        self.calls.append(request)
        self.open += 1
        try:
            yield self._play(script)
        finally:
            self.open -= 1

    async def _play(self, script: Sequence[Line]) -> AsyncIterator[Chunk]:
        for line in script:
            if isinstance(line, Exception):
                raise line
            if isinstance(line, str):
                await asyncio.Event().wait()
            elif isinstance(line, asyncio.Event):
                await line.wait()
            elif isinstance(line, float):
                await asyncio.sleep(line)
            else:
                self.given += 1
                yield line

    def continues(self, model: str) -> bool:
        """Whether it plays the rest, as a test says; else it begins anew."""
        return self.goes_on

    async def models(self) -> list[ListedModel]:
        """There is no list."""
        return []

    async def aclose(self) -> None:
        """Nothing is kept."""


def texts(*words: str) -> list[Line]:
    """Chunks of text."""
    return [TextChunk(word) for word in words]


def answer(*words: str, reason: FinishReason = FinishReason.STOP) -> list[Line]:
    """Chunks of text, and the end."""
    return [*texts(*words), FinishChunk(reason)]

"""A provider of several models, each of which plays scripts of its own."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from rejoin.worker.providers.base import Chunk, ListedModel, ModelRequest
from tests.support.scripted_provider import Line, ScriptedProvider


class SeveralModels:
    """`of` has each model's own part, by its name without the provider's."""

    def __init__(self, **scripts: Sequence[Sequence[Line]]) -> None:
        self.of = {name: ScriptedProvider(*own) for name, own in scripts.items()}

    @asynccontextmanager
    async def stream(self, request: ModelRequest) -> AsyncIterator[AsyncIterator[Chunk]]:
        """Play the next script of the model that is asked."""
        async with self.of[request.model].stream(request) as chunks:
            yield chunks

    def calls(self) -> dict[str, int]:
        """How often each was asked."""
        return {name: len(own.calls) for name, own in self.of.items()}

    def continues(self, model: str) -> bool:
        """They begin anew."""
        return False

    async def models(self) -> list[ListedModel]:
        """There is no list."""
        return []

    async def aclose(self) -> None:
        """Nothing is kept."""

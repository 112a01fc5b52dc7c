"""Ollama, by its /v1; its models by its own API, which says what each can do."""

import asyncio
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

from rejoin.shared.content import FilePart, ImagePart, Part
from rejoin.shared.errors import ProviderError
from rejoin.worker.providers import openai_models
from rejoin.worker.providers.base import ListedModel, ModelRequest
from rejoin.worker.providers.environment import NO_KEY, Access
from rejoin.worker.providers.ollama_host import parse_host
from rejoin.worker.providers.openai_compatible import CompatibleProvider
from rejoin.worker.providers.openai_request import refused

_AT_ONCE: Final = 4
_TEXT: Final = re.compile("data:text/[^,]*;base64,")
SHOW_SECONDS: Final = 10.0  # less than the list's: then it has the names alone


class OllamaProvider(CompatibleProvider):
    """Set up from OLLAMA_HOST, in any form that Ollama takes; it needs no key."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        """Read the environment; unset, it is the Ollama of this machine.

        Raises:
            ProviderError: `authentication`, OLLAMA_HOST cannot be used.
        """
        self._url, host = parse_host(environ.get("OLLAMA_HOST", ""))
        super().__init__(Access(NO_KEY, f"{self._url}/v1", host, ()))

    def body(self, request: ModelRequest) -> dict[str, object]:
        """Return the request's body.

        Raises:
            ProviderError: `invalid_request`, an image by its URL, or a file that is not text.
        """
        for turn in request.turns:
            for part in () if isinstance(turn.content, str) else turn.content:
                _check(part)
        return super().body(request)

    def continues(self, model: str) -> bool:
        """Always: its templates leave a last turn of the assistant's open."""
        return True

    async def listed(self) -> list[ListedModel]:
        """Ask for the models of that machine, and for each what it can do.

        Raises:
            ProviderError: it could not be asked.
        """
        tags = await self.get(f"{self._url}/api/tags")
        named = openai_models.read_models(tags, "models", openai_models.ollama)
        free = asyncio.Semaphore(_AT_ONCE)
        until = asyncio.get_running_loop().time() + SHOW_SECONDS
        async with asyncio.TaskGroup() as group:
            asking = [group.create_task(self._show(model, free, until)) for model in named]
        return [model for task in asking if (model := task.result()) is not None]

    async def _show(
        self, model: ListedModel, free: asyncio.Semaphore, until: float
    ) -> ListedModel | None:
        """What it is by its own answer, where that comes; None where it writes no text."""
        with suppress(ProviderError, TimeoutError):
            async with asyncio.timeout_at(until), free:
                shown = await self.post(f"{self._url}/api/show", {"model": model.name})
                return openai_models.ollama_shown(model.name, openai_models.read_object(shown))
        return model


def _check(part: Part) -> None:
    match part:
        case ImagePart(url) if not url.startswith("data:"):
            raise refused("Ollama takes an image as a data: URL, and fetches none")
        case FilePart(_, file_data) if not _TEXT.match(file_data):
            raise refused(
                "Ollama takes a file of text as a data: URL with base64, and no other file"
            )

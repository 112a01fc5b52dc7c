"""Ollama, by its /v1; its models by its own API, which says what each can do."""

import asyncio
import base64
import binascii
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Final

from rejoin.shared.content import Content, FilePart, ImagePart, Part, TextPart
from rejoin.shared.errors import ProviderError
from rejoin.worker.providers import openai_models
from rejoin.worker.providers.base import ListedModel, ModelRequest
from rejoin.worker.providers.environment import NO_KEY, Access
from rejoin.worker.providers.ollama_host import parse_host
from rejoin.worker.providers.openai_compatible import CompatibleProvider
from rejoin.worker.providers.openai_request import refused

_AT_ONCE: Final = 4
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
        """Return the request's body, files of text as text.

        Raises:
            ProviderError: `invalid_request`, an image by its URL, or a file that is not text.
        """
        turns = [replace(turn, content=_taken(turn.content)) for turn in request.turns]
        return super().body(replace(request, turns=turns))

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


def _taken(content: Content) -> Content:
    return content if isinstance(content, str) else tuple(_part(part) for part in content)


def _part(part: Part) -> Part:
    match part:
        case ImagePart(url) if not url.startswith("data:"):
            raise refused("Ollama takes an image as a data: URL, and fetches none")
        case FilePart(filename, file_data):
            return TextPart(f"{filename}:\n{_text(file_data)}" if filename else _text(file_data))
    return part


def _text(url: str) -> str:
    head, _, data = url.partition(",")
    if not head.startswith("data:text/") or not head.endswith(";base64"):
        raise refused("Ollama takes a file of text as a data: URL with base64, and no other file")
    try:
        return base64.b64decode(data).decode("utf-8", "replace")
    except (binascii.Error, ValueError):
        raise refused("a file's data is not base64") from None

"""OpenAI, and any server with the same API that has no adapter of its own: vLLM, llama.cpp."""

import os
from collections.abc import Mapping
from typing import Final

from rejoin.worker.providers import openai_request
from rejoin.worker.providers.base import ModelRequest
from rejoin.worker.providers.environment import read_access
from rejoin.worker.providers.openai_compatible import CompatibleProvider

DEFAULT_URL: Final = "https://api.openai.com/v1"

_NEW_LIMIT_HOSTS: Final = (".api.openai.com", ".openai.azure.com")


class OpenAIProvider(CompatibleProvider):
    """Set up from OPENAI_API_KEY and OPENAI_BASE_URL."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        """Read the environment.

        Raises:
            ProviderError: `authentication` where neither a key nor a base URL is set, or where
                one of them cannot be used.
        """
        access = read_access(environ, "openai", DEFAULT_URL, "http://HOST:PORT/v1 or https://…")
        super().__init__(access)
        self._limit = (
            "max_completion_tokens" if takes_new_limit(access.host) else openai_request.MAX_TOKENS
        )

    def body(self, request: ModelRequest) -> dict[str, object]:
        """Return the request's body."""
        return openai_request.body(request, limit=self._limit)


def takes_new_limit(host: str) -> bool:
    """Whether a host wants `max_completion_tokens`, and not `max_tokens`.

    OpenAI refuses `max_tokens` for its reasoning models. Elsewhere it is the other way round:
    many servers that resemble OpenAI do not know the new name, and some ignore it in silence.
    """
    return f".{host}".endswith(_NEW_LIMIT_HOSTS)

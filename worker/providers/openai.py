"""OpenAI, and any server with the same API that has no adapter of its own: vLLM, llama.cpp."""

import os
from collections.abc import Mapping
from typing import Final, cast

from rejoin.worker.providers import openai_request
from rejoin.worker.providers.base import ModelRequest
from rejoin.worker.providers.environment import Access, read_access
from rejoin.worker.providers.openai_compatible import CompatibleProvider

DEFAULT_URL: Final = "https://api.openai.com/v1"

_OWN_HOSTS: Final = (".api.openai.com", ".openai.azure.com")
# How vLLM and SGLang leave the last turn open; llama.cpp does so by itself.
_OPEN_END: Final[Mapping[str, object]] = {
    "add_generation_prompt": False,
    "continue_final_message": True,
}
_ID_CHARS: Final = 40  # of a call's id: OpenAI refuses a longer one


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
        self._own = is_openais_own(access.host)
        self._marks_prefix = _marks_prefix(access)

    def body(self, request: ModelRequest) -> dict[str, object]:
        """Return the request's body."""
        if self._own:
            return openai_request.body(request, limit="max_completion_tokens", id_chars=_ID_CHARS)
        made = openai_request.body(request)
        if request.turns and request.turns[-1].role == "assistant":  # it is to go on with that
            if self._marks_prefix:
                cast(list[dict[str, object]], made["messages"])[-1]["prefix"] = True
            else:
                made |= _OPEN_END
        return made

    def continues(self, model: str) -> bool:
        """Mistral's models, and DeepSeek's by its beta; of a vLLM or llama.cpp its list says so."""
        return self._marks_prefix


def is_openais_own(host: str) -> bool:
    """Whether a host is OpenAI's, or Azure's, which wants `max_completion_tokens`.

    It refuses `max_tokens` for its reasoning models. Elsewhere it is the other way round:
    many servers that resemble OpenAI do not know the new name, and some ignore it in silence.
    """
    return f".{host}".endswith(_OWN_HOSTS)


def _marks_prefix(access: Access) -> bool:
    """Whether the last turn is marked as one to go on with; DeepSeek heeds that in its beta."""
    if access.host == "api.deepseek.com":
        return "/beta" in access.base_url
    return access.host == "api.mistral.ai"

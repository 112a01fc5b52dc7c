"""OpenRouter: OpenAI's API, with reasoning that is sent back, and its own word on the cost."""

import os
import re
from collections.abc import Mapping
from typing import Final, cast

from rejoin.worker.providers import openai_models
from rejoin.worker.providers.base import ListedModel, ModelRequest
from rejoin.worker.providers.environment import read_access
from rejoin.worker.providers.openai_compatible import CompatibleProvider

DEFAULT_URL: Final = "https://openrouter.ai/api/v1"


# In its own spelling: claude-3.5-haiku, claude-sonnet-4.5.
_CLAUDE: Final = re.compile(
    r"claude-(?:3[-.\w]*|(?:opus|sonnet|haiku)-4(?:\.[0-5])?)(?:-\d{8})?(?::\w+)?"
)
_OPEN: Final = frozenset({"deepseek", "meta-llama", "mistralai", "nousresearch", "qwen"})


class OpenRouterProvider(CompatibleProvider):
    """Set up from OPENROUTER_API_KEY and OPENROUTER_BASE_URL."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        """Read the environment.

        Raises:
            ProviderError: `authentication` where neither a key nor a base URL is set, or where
                one of them cannot be used.
        """
        super().__init__(read_access(environ, "openrouter", DEFAULT_URL, "https://HOST/api/v1"))

    def body(self, request: ModelRequest) -> dict[str, object]:
        """Return the request's body."""
        made = super().body(request) | {"usage": {"include": True}}
        if effort := made.pop("reasoning_effort", None):
            made["reasoning"] = {"effort": effort}
        if request.response_format is not None:
            # Else it may choose a server of the model that overlooks the format.
            made["provider"] = {"require_parameters": True}
        messages = cast(list[dict[str, object]], made["messages"])
        for turn, message in zip(request.turns, messages, strict=True):
            # Thinking of another provider's, after a fallback, has other types.
            if said := [dict(block) for block in turn.thinking if _is_own(block)]:
                message["reasoning_details"] = said
        return made

    def continues(self, model: str) -> bool:
        """Claude up to 4.5 and open models; others begin anew, or refuse it."""
        maker, _, name = model.partition("/")
        if ":thinking" in name:
            return False
        if maker == "anthropic":
            return _CLAUDE.fullmatch(name) is not None
        return maker in _OPEN or name.startswith("gemma")

    async def listed(self) -> list[ListedModel]:
        """Ask for the models that write text.

        Raises:
            ProviderError: it could not be asked.
        """
        body = await self.get("/models")
        return openai_models.read_models(body, "data", openai_models.openrouter)


def _is_own(block: Mapping[str, object]) -> bool:
    return str(block.get("type")).startswith("reasoning.")

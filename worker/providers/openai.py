"""OpenAI through its SDK, and every server with the same API: OpenRouter, Ollama, vLLM."""

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractContextManager, AsyncExitStack, aclosing, asynccontextmanager
from typing import Final, cast

import httpx2
import openai
from openai import omit
from openai.types.chat import ChatCompletionMessageParam
from openai.types.shared_params import ReasoningEffort

from rejoin.shared.content import encode
from rejoin.shared.errors import ProviderError
from rejoin.worker.providers import openai_errors
from rejoin.worker.providers.base import Chunk, ListedModel, ModelRequest
from rejoin.worker.providers.environment import read_access
from rejoin.worker.providers.exchange import LIMITS, WAITS, read_chunks, refuse_json, translated
from rejoin.worker.providers.openai_chunks import Completion

DEFAULT_URL: Final = "https://api.openai.com/v1"

_NEW_LIMIT_HOSTS: Final = (".api.openai.com", ".openai.azure.com")


class OpenAIProvider:
    """One client for a whole process, set up from OPENAI_API_KEY and OPENAI_BASE_URL."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        """Read the environment; connect to nothing yet.

        Raises:
            ProviderError: `authentication` where neither a key nor a base URL is set, or where
                one of them cannot be used.
        """
        access = read_access(environ, "openai", DEFAULT_URL, "http://HOST:PORT/v1 or https://…")
        self._secrets = access.secrets
        self._new_limit = takes_new_limit(access.host)
        self._client = openai.AsyncOpenAI(
            api_key=access.key,
            base_url=access.base_url,
            max_retries=0,
            timeout=WAITS,
            http_client=openai.DefaultAsyncHttpxClient(timeout=WAITS, limits=LIMITS),
        )
        # Named once here, for naming it imports another 16 ms of the SDK.
        self._completions = self._client.chat.completions.with_streaming_response

    @asynccontextmanager
    async def stream(self, request: ModelRequest) -> AsyncIterator[AsyncIterator[Chunk]]:
        """Call the model; see Provider.

        The SDK sends the request and reads the errors. The body is read here: the SDK's own
        reading costs 95 µs a chunk and this 8, both beside some 55 of its HTTP client.
        """
        async with AsyncExitStack() as stack:
            with self._translated():
                response = await self._call(request, stack)
                await refuse_json(response, self._secrets)
            chunks = read_chunks(response, Completion(self._secrets), self._translate)
            yield await stack.enter_async_context(aclosing(chunks))

    async def models(self) -> list[ListedModel]:
        """The models that the server lists, by their names alone.

        Raises:
            ProviderError: it could not be asked.
        """
        with self._translated():
            listed = await self._client.models.list()
        return [ListedModel(model.id) for model in listed.data]

    async def aclose(self) -> None:
        """Close idle connections."""
        await self._client.close()

    async def _call(self, request: ModelRequest, stack: AsyncExitStack) -> httpx2.Response:
        """Send the request; `stack` closes the connection with its answer."""
        limit = omit if request.max_tokens is None else request.max_tokens
        effort = cast(ReasoningEffort, request.reasoning_effort)  # the provider checks it
        messages = [{"role": turn.role, "content": encode(turn.content)} for turn in request.turns]
        call = self._completions.create(
            model=request.model,
            messages=cast("list[ChatCompletionMessageParam]", messages),
            stream=True,
            stream_options={"include_usage": True},
            temperature=omit if request.temperature is None else request.temperature,
            top_p=omit if request.top_p is None else request.top_p,
            max_completion_tokens=limit if self._new_limit else omit,
            max_tokens=omit if self._new_limit else limit,
            stop=list(request.stop) or omit,
            reasoning_effort=effort or omit,
            extra_headers=(
                {"X-Client-Request-Id": request.reference} if request.reference else None
            ),
        )
        return (await stack.enter_async_context(call)).http_response

    def _translated(self) -> AbstractContextManager[None]:
        return translated(openai.OpenAIError, self._translate)

    def _translate(self, error: Exception) -> ProviderError:
        return openai_errors.translate(error, self._secrets)


def takes_new_limit(host: str) -> bool:
    """Whether a host wants `max_completion_tokens`, and not `max_tokens`.

    OpenAI refuses `max_tokens` for its reasoning models. Elsewhere it is the other way round:
    many servers that resemble OpenAI do not know the new name, and some ignore it in silence.
    """
    return f".{host}".endswith(_NEW_LIMIT_HOSTS)

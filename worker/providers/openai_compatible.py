"""The adapter for OpenAI's chat completions, through its SDK; a provider adds what it has else."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractContextManager, AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import replace
from typing import Final, cast

import httpx2
import openai
from openai.types.chat import ChatCompletionMessageParam

from rejoin.shared.errors import ProviderError
from rejoin.shared.events import FailureCode
from rejoin.worker.providers import openai_errors, openai_models, openai_request
from rejoin.worker.providers.alternation import alternating
from rejoin.worker.providers.base import Chunk, ListedModel, ModelRequest
from rejoin.worker.providers.environment import Access
from rejoin.worker.providers.exchange import CLIENT, WAITS, read_chunks, refuse_json, translated
from rejoin.worker.providers.openai_chunks import Completion
from rejoin.worker.providers.openai_tool_calls import ToolCalls

MODELS_SECONDS: Final = 15.0  # for a provider's whole list of models

_NAMED: Final = frozenset({"model", "messages"})


class CompatibleProvider:
    """One client for a whole process. `body` and `models` are what a provider does its own way."""

    def __init__(self, access: Access) -> None:
        """Connect to nothing yet."""
        self._secrets = access.secrets
        self._ordered: set[str] = set()  # models that insist on the order of roles
        self._client = openai.AsyncOpenAI(
            api_key=access.key,
            base_url=access.base_url,
            max_retries=0,
            timeout=WAITS,
            http_client=openai.DefaultAsyncHttpxClient(**CLIENT),
        )
        # Named once here, for naming it imports another 16 ms of the SDK.
        self._completions = self._client.chat.completions.with_streaming_response

    def body(self, request: ModelRequest) -> dict[str, object]:
        """Return the request's body, each turn one of its `messages`.

        Raises:
            ProviderError: `invalid_request`, the provider has no words for a part of it.
        """
        return openai_request.body(request)

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
            fits = request.response_format is not None
            completion = Completion(self._secrets, _calls(request), fits=fits)
            chunks = read_chunks(response, completion, self._translate)
            yield await stack.enter_async_context(aclosing(chunks))

    async def listed(self) -> list[ListedModel]:
        """Ask for the models; `models` sees to it that this ends.

        Raises:
            ProviderError: it could not be asked.
        """
        return openai_models.read_models(await self.get("/models"), "data", openai_models.plain)

    def continues(self, model: str) -> bool:
        """Not by this API itself, which begins anew; some servers have their own way."""
        return False

    async def models(self) -> list[ListedModel]:
        """The models that the server lists, within MODELS_SECONDS.

        Raises:
            ProviderError: it could not be asked.
        """
        try:
            async with asyncio.timeout(MODELS_SECONDS):
                return await self.listed()
        except TimeoutError:
            raise ProviderError(
                "the provider did not list its models in time",
                code=FailureCode.PROVIDER_TIMEOUT,
                retryable=True,
            ) from None

    async def get(self, path: str) -> bytes:
        """Return what is at a path, or at an URL of the same server.

        Raises:
            ProviderError: it could not be asked.
        """
        with self._translated():
            return (await self._client.get(path, cast_to=httpx2.Response)).content

    async def post(self, path: str, body: Mapping[str, object]) -> bytes:
        """Return what it answers to JSON; as `get` else.

        Raises:
            ProviderError: it could not be asked.
        """
        with self._translated():
            return (await self._client.post(path, body=body, cast_to=httpx2.Response)).content

    async def aclose(self) -> None:
        """Close idle connections."""
        await self._client.close()

    async def _call(self, request: ModelRequest, stack: AsyncExitStack) -> httpx2.Response:
        """Send the request, in the order on which its model insists, if it does.

        That is known once it has refused another: who does not mind is shown what was said.
        """
        if request.model in self._ordered:
            request = replace(request, turns=alternating(request.turns))
            return await self._send(request, stack)
        try:
            return await self._send(request, stack)
        except openai.APIStatusError as error:
            if not openai_errors.refuses_order(error):
                raise
        self._ordered.add(request.model)
        return await self._call(request, stack)

    async def _send(self, request: ModelRequest, stack: AsyncExitStack) -> httpx2.Response:
        """Send the request as it is; `stack` closes the connection with its answer."""
        made = self.body(request)
        call = self._completions.create(
            model=cast(str, made["model"]),
            messages=cast("list[ChatCompletionMessageParam]", made["messages"]),
            stream=True,
            # Made by hand: servers that resemble OpenAI have members that the SDK has not.
            extra_body={name: value for name, value in made.items() if name not in _NAMED},
            extra_headers=(
                {"X-Client-Request-Id": request.reference} if request.reference else None
            ),
        )
        return (await stack.enter_async_context(call)).http_response

    def _translated(self) -> AbstractContextManager[None]:
        return translated(openai.OpenAIError, self._translate)

    def _translate(self, error: Exception) -> ProviderError:
        return openai_errors.translate(error, self._secrets)


def _calls(request: ModelRequest) -> ToolCalls | None:
    if not request.tools:
        return None
    return ToolCalls([call.tool_call_id for turn in request.turns for call in turn.tool_calls])

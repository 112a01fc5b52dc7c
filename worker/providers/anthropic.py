"""Anthropic through its SDK, and every server with the same Messages API."""

import os
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AbstractContextManager, AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import replace
from itertools import count
from typing import Final, cast

import anthropic
import httpx2
from anthropic.types import MessageParam

from rejoin.shared.errors import ProviderError
from rejoin.shared.events import FailureCode
from rejoin.worker.providers import anthropic_errors
from rejoin.worker.providers.anthropic_chunks import MessageStream
from rejoin.worker.providers.anthropic_models import read_page
from rejoin.worker.providers.anthropic_request import (
    body,
    goes_on_by_prefix,
    headers,
    offered,
)
from rejoin.worker.providers.base import Chunk, ListedModel, ModelRequest
from rejoin.worker.providers.environment import read_access
from rejoin.worker.providers.exchange import CLIENT, WAITS, read_chunks, refuse_json, translated

DEFAULT_URL: Final = "https://api.anthropic.com"
MOST_PAUSES: Final = 10  # of one turn; each goes on from where the last one stopped

_NAMED: Final = frozenset({"model", "max_tokens", "messages"})
_PAGE: Final = 1000
_MOST_PAGES: Final = 10


class AnthropicProvider:
    """One client for a whole process, set up from ANTHROPIC_API_KEY and ANTHROPIC_BASE_URL."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        """Read the environment; connect to nothing yet.

        Raises:
            ProviderError: `authentication` where neither a key nor a base URL is set, or where
                one of them cannot be used.
        """
        access = read_access(environ, "anthropic", DEFAULT_URL, "http://HOST:PORT or https://…")
        self._secrets = access.secrets
        self._client = anthropic.AsyncAnthropic(
            api_key=access.key,
            base_url=access.base_url,
            max_retries=0,
            timeout=WAITS,
            http_client=anthropic.DefaultAsyncHttpxClient(**CLIENT),
        )
        self._messages = self._client.messages.with_streaming_response
        self._listing = self._client.models.with_raw_response.list

    @asynccontextmanager
    async def stream(self, request: ModelRequest) -> AsyncIterator[AsyncIterator[Chunk]]:
        """Call the model; see Provider. A turn that the API pauses is gone on with.

        The SDK sends the request and reads the errors; the body is read here, which is faster.
        """
        async with AsyncExitStack() as stack:
            with self._translated():
                made, response = await self._begin(request, stack)
            chunks = self._chunks(request, made, response, stack)
            yield await stack.enter_async_context(aclosing(chunks))

    def continues(self, model: str) -> bool:
        """Claude up to 4.5: later ones refuse it."""
        return goes_on_by_prefix(model)

    async def models(self) -> list[ListedModel]:
        """The models that the server lists.

        Raises:
            ProviderError: it could not be asked.
        """
        listed: list[ListedModel] = []
        after: str | None = None
        for _ in range(_MOST_PAGES):
            # The SDK's own objects are whatever came, unchecked: the bytes are read here.
            with self._translated():
                answer = await self._listing(limit=_PAGE, after_id=after or anthropic.omit)
            page = read_page(await answer.read())
            listed += page.models
            if (after := page.after) is None:
                break
        return listed

    async def aclose(self) -> None:
        """Close idle connections."""
        await self._client.close()

    async def _begin(
        self, request: ModelRequest, stack: AsyncExitStack
    ) -> tuple[dict[str, object], httpx2.Response]:
        """Send the request; a second time, without earlier thoughts, where it refuses those.

        Newer models tie each of them to all that stood before it. A conversation may have been cut
        to the window since, or have got another system's turn or other tools, and each of its
        later messages would be refused.
        """
        made = body(request)
        try:
            return made, await self._call(made, request.reference, stack)
        except anthropic.BadRequestError as error:
            thought = any(turn.thinking for turn in request.turns)
            if not thought or not anthropic_errors.refuses_thoughts(error):
                raise
        made = body(replace(request, turns=[replace(turn, thinking=()) for turn in request.turns]))
        return made, await self._call(made, request.reference, stack)

    async def _call(
        self, made: Mapping[str, object], reference: str, stack: AsyncExitStack
    ) -> httpx2.Response:
        """Send the request; `stack` closes the connection with its answer."""
        rest = {name: value for name, value in made.items() if name not in _NAMED}
        call = self._messages.create(
            model=cast(str, made["model"]),
            max_tokens=cast(int, made["max_tokens"]),
            messages=cast("list[MessageParam]", made["messages"]),
            stream=True,
            # Made by hand, for the SDK has no words for a temperature, which older models take.
            extra_body=rest,
            extra_headers=headers(made, reference),
        )
        response = (await stack.enter_async_context(call)).http_response
        await refuse_json(response, self._secrets)
        return response

    async def _chunks(
        self,
        request: ModelRequest,
        made: dict[str, object],
        response: httpx2.Response,
        stack: AsyncExitStack,
    ) -> AsyncGenerator[Chunk, None]:
        """The chunks of one turn, over as many calls as the API pauses it into."""
        message = MessageStream(offered(request), self._secrets)
        messages = cast(list[object], made["messages"])
        said: list[object] = []
        for pauses in count(1):
            async with aclosing(read_chunks(response, message, self._translate)) as chunks:
                async for chunk in chunks:
                    yield chunk
            if not message.paused:
                return
            if pauses > MOST_PAUSES:
                raise ProviderError(
                    f"the provider paused the turn {MOST_PAUSES} times and did not end it",
                    code=FailureCode.PROVIDER_PROTOCOL,
                    retryable=False,
                )
            said += message.content
            paused = made | {"messages": [*messages, {"role": "assistant", "content": said}]}
            with self._translated():
                response = await self._call(paused, request.reference, stack)
            message = MessageStream(
                offered(request), self._secrets, message.usage, message.text_chars
            )

    def _translated(self) -> AbstractContextManager[None]:
        return translated(anthropic.AnthropicError, self._translate)

    def _translate(self, error: Exception) -> ProviderError:
        return anthropic_errors.translate(error, self._secrets)

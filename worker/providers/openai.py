"""OpenAI through its SDK, and every server with the same API: OpenRouter, Ollama, vLLM."""

import os
from asyncio import timeout
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, contextmanager, suppress
from typing import Final, cast
from urllib.parse import urlsplit

import httpx2
import openai
from openai import omit
from openai.types.chat import ChatCompletionMessageParam
from openai.types.shared_params import ReasoningEffort

from rejoin.shared.content import encode
from rejoin.shared.errors import ProviderError
from rejoin.shared.events import FailureCode
from rejoin.worker.providers import openai_errors
from rejoin.worker.providers.base import Chunk, ListedModel, ModelRequest
from rejoin.worker.providers.openai_chunks import Completion

DEFAULT_URL: Final = "https://api.openai.com/v1"
CONNECT_SECONDS: Final = 10.0
_DRAIN_SECONDS: Final = 0.1
_MAX_OTHER_BYTES: Final = 65_536  # read of an answer that is no stream, for its error

_NO_KEY: Final = "none"  # the SDK insists on one; servers without keys do not look at it

_NEW_LIMIT_HOSTS: Final = (".api.openai.com", ".openai.azure.com")


class OpenAIProvider:
    """One client for a whole process, set up from OPENAI_API_KEY and OPENAI_BASE_URL."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        """Read the environment; connect to nothing yet.

        Raises:
            ProviderError: `authentication` where neither a key nor a base URL is set, or where
                one of them cannot be used.
        """
        key = environ.get("OPENAI_API_KEY", "").strip()
        base_url = environ.get("OPENAI_BASE_URL", "").strip()
        if not key and not base_url:
            raise _unusable(
                "openai is not configured: set OPENAI_API_KEY, or OPENAI_BASE_URL for a server"
                " that needs no key"
            )
        if not key.isascii() or not key.isprintable():
            raise _unusable("OPENAI_API_KEY holds characters that no key has")
        host = _host(base_url or DEFAULT_URL)
        # A shorter one is a placeholder, and hiding "x" would spoil every message.
        self._secrets = (key,) if len(key) >= 8 else ()
        self._new_limit = takes_new_limit(host)
        # No deadline but for connecting: the step owns the others. No bound on connections
        # either: the worker's max_jobs is one, and a second here would only queue in silence.
        waits = httpx2.Timeout(None, connect=CONNECT_SECONDS)
        self._client = openai.AsyncOpenAI(
            api_key=key or _NO_KEY,
            base_url=base_url or DEFAULT_URL,
            max_retries=0,
            timeout=waits,
            http_client=openai.DefaultAsyncHttpxClient(
                timeout=waits,
                limits=httpx2.Limits(max_connections=None, max_keepalive_connections=100),
            ),
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
                await self._refuse_other_bodies(response)
            yield await stack.enter_async_context(aclosing(self._chunks(response)))

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

    async def _chunks(self, response: httpx2.Response) -> AsyncGenerator[Chunk, None]:
        completion = Completion(self._secrets)
        async with aclosing(response.aiter_bytes()) as body:
            try:
                async for received in body:
                    for chunk in completion.feed(received):
                        yield chunk
                    if completion.ended:
                        await _drain(body)
                        break
            except httpx2.HTTPError as error:
                if not completion.finished:  # else nothing but the usage can be missing
                    raise openai_errors.translate(error, self._secrets) from None
                return
        for chunk in completion.end():
            yield chunk

    async def _refuse_other_bodies(self, response: httpx2.Response) -> None:
        """Raise what a JSON answer says: an error under status 200, or one that is no stream."""
        if "json" not in response.headers.get("content-type", ""):
            return
        read = bytearray()
        async with aclosing(response.aiter_bytes()) as body:
            async for received in body:
                read += received
                if len(read) > _MAX_OTHER_BYTES:
                    break
        raise openai_errors.not_a_stream(bytes(read[:_MAX_OTHER_BYTES]), self._secrets)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Raise a ProviderError for what the SDK and its HTTP client raise.

        Without its cause: that holds the request with the key, and words not yet scrubbed.
        """
        try:
            yield
        except (openai.OpenAIError, httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise openai_errors.translate(error, self._secrets) from None
        except ValueError:  # half a surrogate pair, NaN: it never left
            raise ProviderError(
                "the request holds text or a number that JSON has not",
                code=FailureCode.INVALID_REQUEST,
                retryable=False,
            ) from None


def takes_new_limit(host: str) -> bool:
    """Whether a host wants `max_completion_tokens`, and not `max_tokens`.

    OpenAI refuses `max_tokens` for its reasoning models. Elsewhere it is the other way round:
    many servers that resemble OpenAI do not know the new name, and some ignore it in silence.
    """
    return f".{host}".endswith(_NEW_LIMIT_HOSTS)


async def _drain(body: AsyncIterator[bytes]) -> None:
    """Read on to the body's end, which a connection needs to serve the next request too."""
    with suppress(TimeoutError, httpx2.HTTPError):
        async with timeout(_DRAIN_SECONDS):
            async for _ in body:
                pass


def _host(base_url: str) -> str:
    """Return the host of an http(s) URL, else raise; the text never repeats the URL."""
    try:
        parts = urlsplit(base_url)
        _ = parts.port
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise _unusable("OPENAI_BASE_URL has the form http://HOST:PORT/v1 or https://…")
    return parts.hostname


def _unusable(detail: str) -> ProviderError:
    return ProviderError(detail, code=FailureCode.AUTHENTICATION, retryable=False)

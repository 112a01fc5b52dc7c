"""One streamed call through an SDK's HTTP client: its deadlines, its body, its errors."""

from asyncio import timeout
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager, nullcontext, suppress
from typing import Any, Final, Protocol

import httpx2

from rejoin.shared.errors import ProviderError
from rejoin.shared.events import FailureCode
from rejoin.worker.providers import error_objects
from rejoin.worker.providers.base import Chunk, LimitsChunk
from rejoin.worker.providers.rate_headers import rate_limits

CONNECT_SECONDS: Final = 10.0
_DRAIN_SECONDS: Final = 0.1
_MAX_OTHER_BYTES: Final = 65_536  # read of an answer that is no stream, for its error
_MAX_WHOLE_BYTES: Final = 16 * 1024 * 1024  # of an answer that is read whole, a list of models

# No deadline but for connecting: the step owns the others. No bound on connections either: the
# worker's max_jobs is one, and a second here would only queue in silence.
WAITS: Final = httpx2.Timeout(None, connect=CONNECT_SECONDS)
LIMITS: Final = httpx2.Limits(max_connections=None, max_keepalive_connections=100)


async def bounded(response: httpx2.Response) -> None:
    """Read an answer that is read whole anyway, to a bound; a hook of the HTTP client.

    The SDKs read errors, lists and redirections to their end, which need not come. An error is cut
    off there: its beginning says what it is, and so does one whose connection broke.

    Raises:
        httpx2.DecodingError: it is too long, or compressed more than once, which a few bytes may
            be to last for hours.
    """
    encodings = response.headers.get("content-encoding", "")
    if "," in encodings:
        raise httpx2.DecodingError(f"compressed more than once: {encodings[:100]}")
    failed = response.status_code >= httpx2.codes.MULTIPLE_CHOICES
    json = "json" in response.headers.get("content-type", "")
    if not failed and not json and response.request.method != "GET":
        return
    # A second response of the same stream, for the first is yet to be read by the SDK.
    shown = httpx2.Response(response.status_code, headers=response.headers, stream=response.stream)
    read, most = bytearray(), _MAX_OTHER_BYTES if failed else _MAX_WHOLE_BYTES
    with suppress(httpx2.TransportError) if failed else nullcontext():
        async with aclosing(shown), aclosing(shown.aiter_bytes()) as body:
            async for received in body:
                read += received
                if len(read) > most:
                    break
    if not failed and len(read) > most:
        raise httpx2.DecodingError(f"an answer of more than {most} bytes")
    response.headers.pop("content-encoding", None)
    response.stream = httpx2.ByteStream(bytes(read[:most]))


# What an SDK's HTTP client is made with.
CLIENT: Final[Mapping[str, Any]] = {
    "timeout": WAITS,
    "limits": LIMITS,
    "event_hooks": {"response": [bounded]},
}


class Reader(Protocol):
    """Makes chunks of a body's bytes.

    `finished`: nothing but the usage can be missing. `ended`: no more is to be read.
    """

    finished: bool
    ended: bool

    def feed(self, received: bytes) -> Iterator[Chunk]:
        """Yield the chunks that these bytes complete."""

    def end(self) -> Iterator[Chunk]:
        """Yield what the body's end completes."""


async def read_chunks(
    response: httpx2.Response, reader: Reader, translate: Callable[[Exception], ProviderError]
) -> AsyncGenerator[Chunk, None]:
    """Yield what the headers say of limits, then a body's chunks as they come.

    The connection is left to the next call.

    Raises:
        ProviderError: what `reader` finds, or that the connection broke before it was finished.
    """
    if (limits := rate_limits(response.headers)) is not None:
        yield LimitsChunk(limits)
    async with aclosing(response.aiter_bytes()) as body:
        try:
            async for received in body:
                for chunk in reader.feed(received):
                    yield chunk
                if reader.ended:
                    await _drain(body)
                    break
        except httpx2.HTTPError as error:
            if not reader.finished:
                raise translate(error) from None
            return
    for chunk in reader.end():
        yield chunk


async def refuse_json(response: httpx2.Response, secrets: Sequence[str]) -> None:
    """Raise what a JSON answer says: an error under status 200, or one that is no stream.

    Raises:
        ProviderError: it is JSON.
    """
    if "json" not in response.headers.get("content-type", ""):
        return
    read = bytearray()
    async with aclosing(response.aiter_bytes()) as body:
        async for received in body:
            read += received
            if len(read) > _MAX_OTHER_BYTES:
                break
    raise error_objects.not_a_stream(bytes(read[:_MAX_OTHER_BYTES]), secrets)


@contextmanager
def translated(
    raised: type[Exception], translate: Callable[[Exception], ProviderError]
) -> Iterator[None]:
    """Raise a ProviderError for what an SDK (`raised`) and its HTTP client raise.

    Without its cause: that holds the request with the key, and words not yet scrubbed.
    """
    try:
        yield
    except (raised, httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise translate(error) from None
    except ValueError:  # half a surrogate pair, NaN: it never left
        raise ProviderError(
            "the request holds text or a number that JSON has not",
            code=FailureCode.INVALID_REQUEST,
            retryable=False,
        ) from None


async def _drain(body: AsyncIterator[bytes]) -> None:
    """Read on to the body's end, which a connection needs to serve the next request too."""
    with suppress(TimeoutError, httpx2.HTTPError):
        async with timeout(_DRAIN_SECONDS):
            async for _ in body:
                pass

"""Answers that are made to hurt: without an end, packed over and over, numbers without sense."""

import gzip
import itertools
import zlib
from collections.abc import Iterator

import httpx2
import pytest

from rejoin.shared.errors import ProviderError
from rejoin.shared.events import FailureCode
from rejoin.worker.providers.anthropic import AnthropicProvider
from rejoin.worker.providers.chunk_json import count
from rejoin.worker.providers.exchange import bounded
from rejoin.worker.providers.openai import OpenAIProvider
from rejoin.worker.providers.openai_usage import read_usage
from tests.providers.answers import failure
from tests.support.provider_script import Answer
from tests.support.provider_server import ProviderServer

PIECE = b"a" * 65_536


class Body(httpx2.AsyncByteStream):
    """A body that notes how much of it was read, and whether it was closed."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self.pieces = pieces
        self.read = 0
        self.closed = False

    async def __aiter__(self):  # type: ignore[no-untyped-def]
        for piece in self.pieces:
            self.read += len(piece)
            yield piece

    async def aclose(self) -> None:
        self.closed = True


def response(body: Body, status: int, method: str = "POST", **headers: str) -> httpx2.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    request = httpx2.Request(method, "http://provider/v1")
    return httpx2.Response(status, headers=named, stream=body, request=request)


@pytest.mark.parametrize("status", [307, 400, 429, 500])
async def test_an_error_without_an_end_is_read_to_a_bound(status: int) -> None:
    body = Body(itertools.repeat(PIECE))
    answer = response(body, status)
    await bounded(answer)
    assert (len(await answer.aread()), body.closed) == (65_536, True)
    assert body.read <= 3 * len(PIECE)


async def test_an_error_that_grows_as_it_is_unpacked_is_read_to_a_bound() -> None:
    body = Body(iter([gzip.compress(b'{"error":"' + b"a" * 50_000_000)]))
    answer = response(body, 500, content_encoding="gzip")
    await bounded(answer)
    assert len(await answer.aread()) == 65_536


async def test_an_error_whose_connection_breaks_is_known_by_its_status() -> None:
    def broken() -> Iterator[bytes]:
        yield b'{"error"'
        raise httpx2.ReadError("reset")

    answer = response(Body(broken()), 429)
    await bounded(answer)
    assert await answer.aread() == b'{"error"'


@pytest.mark.parametrize(("method", "kind"), [("GET", "text/html"), ("POST", "application/json")])
async def test_a_list_without_an_end_is_refused(method: str, kind: str) -> None:
    body = Body(itertools.repeat(PIECE))
    with pytest.raises(httpx2.DecodingError, match="more than 16777216 bytes"):
        await bounded(response(body, 200, method, content_type=kind))
    assert body.read < 17 * 2**20


async def test_a_list_is_read_as_it_was_sent() -> None:
    body = Body(iter([zlib.compress(b'{"data":[]}')]))
    answer = response(body, 200, "GET", content_type="application/json", content_encoding="deflate")
    await bounded(answer)
    assert await answer.aread() == b'{"data":[]}'


async def test_a_stream_is_left_to_its_reader() -> None:
    body = Body(itertools.repeat(PIECE))
    await bounded(response(body, 200, content_type="text/event-stream"))
    assert body.read == 0


async def test_what_is_compressed_more_than_once_is_not_unpacked(
    server: ProviderServer, provider: OpenAIProvider, claude: AnthropicProvider
) -> None:
    packed = gzip.compress(gzip.compress(b": comment\n\n" * 1000))
    headers = {"Content-Encoding": "gzip, gzip"}
    for one in (provider, claude):
        server.play(Answer([packed], headers=headers))
        error = await failure(one)
        assert (error.code, error.retryable) == (FailureCode.PROVIDER_UNAVAILABLE, True)
        assert "compressed more than once" in str(error)


async def test_an_error_without_an_end_fails_both_providers(
    server: ProviderServer, provider: OpenAIProvider, claude: AnthropicProvider
) -> None:
    for one in (provider, claude):
        server.play(Answer(itertools.repeat(PIECE), status=500))
        error = await failure(one)
        assert isinstance(error, ProviderError)
        assert (error.code, error.status) == (FailureCode.PROVIDER_UNAVAILABLE, 500)


@pytest.mark.parametrize("tokens", [10**400, 10**30, 1e300, float("inf"), float("nan"), -1, True])
def test_tokens_that_no_call_could_use_are_none(tokens: object) -> None:
    assert count(tokens) == 0


@pytest.mark.parametrize("cost", [10**400, 1e300, float("inf"), float("nan"), -1.0])
def test_a_cost_that_no_call_could_have_is_unknown(cost: object) -> None:
    used = read_usage({"prompt_tokens": 1, "cost": cost})
    assert used is not None
    assert used.cost_usd is None

"""A client that offers another protocol with its request is answered in the one it speaks."""

import asyncio
import json

import pytest

from tests.support.caller import Caller

BODY = json.dumps({"model": "demo/echo", "input": "hello"}).encode()
WHOLE = b"Content-Length: %d\r\n\r\n%b" % (len(BODY), BODY)
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)
# As the JDK's client does with each request, and curl --http2.
OFFERS = (
    b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAA\r\n",
    b"connection: upgrade\r\nupgrade: websocket\r\n",
)


async def answer_to(api: Caller, head: bytes, rest: bytes) -> tuple[bytes, bytes]:
    """The answers to a request, and to a plain one on the same connection."""
    url = api.http.base_url
    async with asyncio.timeout(10):
        reader, writer = await asyncio.open_connection(url.host, url.port)
        writer.write(head + rest)
        first = await reader.readuntil(b"\r\n\r\n")
        at = first.index(b"content-length: ") + 16
        first += await reader.readexactly(int(first[at : first.index(b"\r\n", at)]))
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        second = await reader.read()
        writer.close()
        return first, second


@pytest.mark.parametrize("offer", OFFERS)
@pytest.mark.parametrize("rest", [WHOLE, CHUNKED])
async def test_the_body_of_a_request_that_offers_it_is_heard(
    idle_api: Caller, offer: bytes, rest: bytes
) -> None:
    head = b"POST /api/messages HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n" + offer
    accepted, next_one = await answer_to(idle_api, head, rest)
    assert accepted.startswith(b"HTTP/1.1 202 "), accepted
    assert b'"status":"queued"' in accepted
    assert next_one.startswith(b"HTTP/1.1 200 ")

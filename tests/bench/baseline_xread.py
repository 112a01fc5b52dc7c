"""The baseline for tails: one blocking XREAD per client through Starlette's StreamingResponse.

What a tutorial would write; it reads the same logs. `python -m tests.bench.baseline_xread PORT
REDIS_URL` serves it.
"""

import sys
from collections.abc import AsyncIterator
from typing import Final

import uvicorn
from redis.asyncio import ConnectionPool, Redis
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

_BLOCK_MS: Final = 5000
_PAGE: Final = 100
_ENDS: Final = (b"event: done\n", b"event: failed\n")


def create_app(redis_url: str) -> Starlette:
    """The application."""
    redis = Redis(connection_pool=ConnectionPool.from_url(redis_url, max_connections=20_000))

    async def frames(key: str) -> AsyncIterator[bytes]:
        position: bytes | str = "0"
        while True:
            for _, entries in await redis.xread({key: position}, count=_PAGE, block=_BLOCK_MS):
                for entry_id, fields in entries:
                    position = entry_id
                    yield fields[b"f"]
                    if fields[b"f"].startswith(_ENDS):
                        return

    async def events(request: Request) -> Response:
        key = f"rejoin:{{{request.path_params['message_id']}}}:log"
        return StreamingResponse(frames(key), media_type="text/event-stream")

    async def ready(_: Request) -> Response:
        return PlainTextResponse("ready")

    return Starlette(
        routes=[Route("/api/messages/{message_id}/events", events), Route("/readyz", ready)]
    )


if __name__ == "__main__":
    uvicorn.run(
        create_app(sys.argv[2]),
        host="127.0.0.1",
        port=int(sys.argv[1]),
        access_log=False,
        log_level="warning",
        timeout_graceful_shutdown=1,
    )

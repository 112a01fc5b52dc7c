"""GET /healthz: the process is up. GET /readyz: it can work, Redis is there."""

from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from rejoin.api.answers import json_answer
from rejoin.api.bounds import redis_answers
from rejoin.api.context import Context
from rejoin.shared.connections import ping
from rejoin.shared.errors import Unavailable

_PING_SECONDS: Final = 1.5


class HealthEndpoints:
    """The two endpoints; neither asks who the caller is."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def healthz(self, _: Request) -> Response:
        """Answer while the process lives."""
        return json_answer({"status": "ok"})

    async def readyz(self, _: Request) -> Response:
        """Answer 503 while Redis is away, and from a SIGTERM on."""
        if self._context.hub.draining:
            raise Unavailable("this process ends")
        async with redis_answers(_PING_SECONDS):
            await ping(self._context.redis)
        return json_answer({"status": "ok"})

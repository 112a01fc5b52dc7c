"""The bound of what a request asks of Redis: an answer within 5 s, whatever Redis does."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from rejoin.shared.errors import Unavailable

# Less than the four that uvicorn leaves a request on SIGTERM: it answers 500 to what it cuts off.
ANSWER_SECONDS: Final = 3.5


@asynccontextmanager
async def redis_answers(seconds: float = ANSWER_SECONDS) -> AsyncIterator[None]:
    """Bound a block that waits for Redis.

    Raises:
        Unavailable: the time is up. What was sent may or may not have been stored.
    """
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as error:
        raise Unavailable("Redis did not answer in time") from error

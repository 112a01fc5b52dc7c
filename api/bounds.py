"""The bound of what a request asks of Redis and the database: an answer within 5 s."""

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
    async with _in_time(seconds, "Redis did not answer in time"):
        yield


@asynccontextmanager
async def database_answers(seconds: float = ANSWER_SECONDS) -> AsyncIterator[None]:
    """Bound a block that waits for the database.

    Raises:
        Unavailable: the time is up.
    """
    async with _in_time(seconds, "the database did not answer in time"):
        yield


@asynccontextmanager
async def both_answer(seconds: float = ANSWER_SECONDS) -> AsyncIterator[None]:
    """Bound a block that waits for Redis and for the database.

    Raises:
        Unavailable: the time is up. What was sent may or may not have been stored.
    """
    async with _in_time(seconds, "Redis or the database did not answer in time"):
        yield


@asynccontextmanager
async def _in_time(seconds: float, otherwise: str) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as error:
        raise Unavailable(otherwise) from error

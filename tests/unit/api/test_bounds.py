"""The bound of what is asked of Redis."""

import asyncio

import pytest

from rejoin.api.bounds import ANSWER_SECONDS, redis_answers
from rejoin.shared.errors import Unavailable


async def test_what_takes_too_long_is_unavailable() -> None:
    with pytest.raises(Unavailable):
        async with redis_answers(0.01):
            await asyncio.Event().wait()


async def test_other_errors_pass() -> None:
    with pytest.raises(KeyError):
        async with redis_answers():
            raise KeyError


async def test_a_cancelled_request_is_no_redis_that_is_away() -> None:
    async def wait() -> None:
        async with redis_answers():
            await asyncio.Event().wait()

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_an_answer_comes_within_the_contracts_five_seconds() -> None:
    assert ANSWER_SECONDS < 5

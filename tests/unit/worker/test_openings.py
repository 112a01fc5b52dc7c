"""Takeovers of one worker wait for one another before their first model call, within a bound."""

import asyncio
import contextlib

from rejoin.worker.openings import Openings
from tests.support.messages import until_true


async def test_settled_waits_until_the_last_one_has_opened() -> None:
    openings, order = Openings(), list[str]()

    async def opens(name: str, gate: asyncio.Event) -> None:
        with openings:
            await gate.wait()
            order.append(name)
        await openings.settled()
        order.append(f"{name} goes on")

    first, last = asyncio.Event(), asyncio.Event()
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        group.create_task(opens("first", first))
        group.create_task(opens("last", last))
        await until_true(lambda: openings.under_way == 2)
        first.set()
        await until_true(lambda: "first" in order)
        last.set()
    assert order[:2] == ["first", "last"]


async def test_settled_does_not_wait_for_ever() -> None:
    openings = Openings()
    with openings:
        async with asyncio.timeout(5):
            await openings.settled()


async def test_one_that_fails_to_open_holds_nobody() -> None:
    openings = Openings()
    with contextlib.suppress(ZeroDivisionError), openings:
        _ = 1 / 0
    assert openings.under_way == 0
    await asyncio.wait_for(openings.settled(), 0.1)

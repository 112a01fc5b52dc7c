"""The deadlines ring in their order, and only when nothing was heard for so long."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from rejoin.worker.deadlines import Deadlines
from rejoin.worker.stopping import Stop, Stoppable, Stopped

LONG = 60.0


async def stopped_by(
    body: Callable[[Deadlines], Awaitable[None]],
    *,
    first: float = LONG,
    idle: float = LONG,
    total: float = LONG,
) -> tuple[Stop | None, float]:
    """Run `body` under deadlines; what stopped it, and after how many seconds."""
    part = Stoppable()
    loop = asyncio.get_running_loop()
    began = loop.time()
    deadlines = Deadlines(part, first_token_seconds=first, idle_seconds=idle, total_seconds=total)
    try:
        async with asyncio.timeout(5), part:
            with deadlines:
                await body(deadlines)
    except Stopped as stopped:
        return stopped.reason, loop.time() - began
    return None, loop.time() - began


async def silence(_: Deadlines) -> None:
    await asyncio.Event().wait()


async def one_chunk(deadlines: Deadlines) -> None:
    deadlines.heard()
    await asyncio.Event().wait()


def chunks(count: int, every: float) -> Callable[[Deadlines], Awaitable[None]]:
    async def body(deadlines: Deadlines) -> None:
        for _ in range(count):
            await asyncio.sleep(every)
            deadlines.heard()

    return body


async def test_no_first_token_in_time() -> None:
    reason, seconds = await stopped_by(silence, first=0.05, idle=0.01)
    assert reason is Stop.FIRST_TOKEN
    assert seconds >= 0.05


async def test_silence_after_the_first_token() -> None:
    reason, seconds = await stopped_by(one_chunk, first=0.01, idle=0.05)
    assert reason is Stop.IDLE
    assert seconds >= 0.05


async def test_the_total_rings_while_chunks_still_come() -> None:
    reason, seconds = await stopped_by(chunks(1000, 0.01), first=0.2, idle=0.2, total=0.1)
    assert reason is Stop.TOTAL
    assert seconds >= 0.1


async def test_a_total_that_is_over_rings_at_once() -> None:
    for total in (0.0, -5.0):
        reason, seconds = await stopped_by(silence, total=total)
        assert reason is Stop.TOTAL
        assert seconds < 1


async def test_chunks_that_keep_coming_are_never_silence() -> None:
    reason, seconds = await stopped_by(chunks(24, 0.05), first=0.8, idle=0.8)
    assert reason is None
    assert seconds >= 1.2  # more than the silence that would have been too long


async def test_silence_counts_from_the_last_chunk_not_from_the_first() -> None:
    async def three_then_silence(deadlines: Deadlines) -> None:
        await chunks(3, 0.05)(deadlines)
        await silence(deadlines)

    reason, seconds = await stopped_by(three_then_silence, idle=0.2)
    assert reason is Stop.IDLE
    assert seconds >= 0.15 + 0.2


async def test_a_late_first_token_is_no_silence() -> None:
    reason, _ = await stopped_by(chunks(1, 0.1), first=5, idle=0.02)
    assert reason is None


async def test_the_sooner_deadline_is_the_reason() -> None:
    assert (await stopped_by(silence, first=0.05, total=0.3))[0] is Stop.FIRST_TOKEN
    assert (await stopped_by(silence, first=0.3, total=0.05))[0] is Stop.TOTAL
    assert (await stopped_by(one_chunk, idle=0.05, total=0.3))[0] is Stop.IDLE
    assert (await stopped_by(one_chunk, idle=0.3, total=0.05))[0] is Stop.TOTAL


@pytest.mark.parametrize("times", [0, 1, 3])
async def test_after_the_call_no_timer_rings(times: int) -> None:
    part = Stoppable()
    deadlines = Deadlines(part, first_token_seconds=0.01, idle_seconds=0.01, total_seconds=0.01)
    async with part:
        with deadlines:
            for _ in range(times):
                deadlines.heard()
    await asyncio.sleep(0.05)
    assert part.reason is None


async def test_a_deadline_never_interrupts_another_call_of_the_same_run() -> None:
    part = Stoppable()
    async with part:
        with Deadlines(part, first_token_seconds=0.01, idle_seconds=1, total_seconds=1) as first:
            first.heard()
        with Deadlines(part, first_token_seconds=1, idle_seconds=1, total_seconds=1):
            await asyncio.sleep(0.05)
    assert part.reason is None


async def test_nobody_is_silent_while_nobody_reads() -> None:
    async def body(deadlines: Deadlines) -> None:
        deadlines.heard()
        with deadlines.not_reading():
            await asyncio.sleep(0.15)
        await asyncio.sleep(0.02)
        deadlines.heard()

    assert (await stopped_by(body, first=0.05, idle=0.05))[0] is None


async def test_silence_begins_anew_when_the_provider_is_read_on() -> None:
    async def body(deadlines: Deadlines) -> None:
        deadlines.heard()
        with deadlines.not_reading():
            await asyncio.sleep(0.1)
        await asyncio.Event().wait()

    reason, seconds = await stopped_by(body, idle=0.05)
    assert reason is Stop.IDLE
    assert seconds >= 0.15


async def test_a_provider_that_never_closes_is_left_though_nobody_read_it_for_a_while() -> None:
    async def body(deadlines: Deadlines) -> None:
        deadlines.heard()
        deadlines.finished()
        with deadlines.not_reading():
            await asyncio.sleep(0.15)
        await asyncio.Event().wait()

    reason, seconds = await stopped_by(body, idle=0.05)
    assert reason is Stop.IDLE
    assert seconds >= 0.2


async def test_the_total_rings_while_nobody_reads() -> None:
    async def body(deadlines: Deadlines) -> None:
        deadlines.heard()
        with deadlines.not_reading():
            await asyncio.Event().wait()

    assert (await stopped_by(body, total=0.05))[0] is Stop.TOTAL

"""A stop reaches its part of a task and nothing else; other cancellations pass through."""

import asyncio

import pytest

from rejoin.worker.stopping import Stop, Stoppable, Stopped


async def inside(part: Stoppable, entered: asyncio.Event, release: asyncio.Event) -> str:
    async with part:
        entered.set()
        await release.wait()
    return "ran to its end"


async def started(
    part: Stoppable,
) -> tuple[asyncio.Task[str], asyncio.Event]:
    entered, release = asyncio.Event(), asyncio.Event()
    task = asyncio.create_task(inside(part, entered, release))
    await entered.wait()
    return task, release


async def test_a_part_that_nobody_stops_runs_to_its_end() -> None:
    task, release = await started(Stoppable())
    release.set()
    assert await task == "ran to its end"


async def test_a_stop_from_before_is_met_at_the_door() -> None:
    part = Stoppable()
    part.stop(Stop.CANCELLED)
    ran = False
    with pytest.raises(Stopped) as stopped:
        async with part:
            ran = True
    assert stopped.value.reason is Stop.CANCELLED
    assert not ran


async def test_a_stop_reaches_a_task_that_waits() -> None:
    part = Stoppable()
    task, _ = await started(part)
    part.stop(Stop.IDLE)
    with pytest.raises(Stopped) as stopped:
        await task
    assert stopped.value.reason is Stop.IDLE
    assert task.cancelling() == 0


async def test_a_stop_after_the_end_changes_nothing() -> None:
    part = Stoppable()
    task, release = await started(part)
    release.set()
    await task
    part.stop(Stop.TOTAL)
    assert part.reason is Stop.TOTAL
    with pytest.raises(Stopped):
        await part.__aenter__()


async def test_a_stop_while_the_task_is_already_leaving_is_met_all_the_same() -> None:
    part = Stoppable()
    task, release = await started(part)
    release.set()  # its wake-up is scheduled
    part.stop(Stop.CANCELLED)
    with pytest.raises(Stopped):
        await task


async def test_the_first_reason_counts() -> None:
    part = Stoppable()
    task, _ = await started(part)
    for reason in (Stop.LOG_FULL, Stop.CANCELLED, Stop.HANDED_OVER):
        part.stop(reason)
    with pytest.raises(Stopped) as stopped:
        await task
    assert stopped.value.reason is Stop.LOG_FULL


async def test_somebody_elses_cancellation_passes_through() -> None:
    part = Stoppable()
    task, _ = await started(part)
    task.cancel("shutdown")
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()
    assert part.reason is None


@pytest.mark.parametrize("ours_first", [True, False])
async def test_of_both_at_once_somebody_elses_goes_on(ours_first: bool) -> None:
    part = Stoppable()
    task, _ = await started(part)
    if ours_first:
        part.stop(Stop.CANCELLED)
        task.cancel()
    else:
        task.cancel()
        part.stop(Stop.CANCELLED)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()


async def test_after_a_stop_the_task_can_go_on_and_be_cancelled_later() -> None:
    part = Stoppable()
    entered, after = asyncio.Event(), asyncio.Event()

    async def run() -> None:
        try:
            async with part:
                entered.set()
                await asyncio.Event().wait()
        except Stopped:
            after.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(run())
    await entered.wait()
    part.stop(Stop.CANCELLED)
    async with asyncio.timeout(5):
        await after.wait()
    assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_cleaning_up_may_wait_while_the_stop_unwinds() -> None:
    part = Stoppable()
    entered, closed = asyncio.Event(), asyncio.Event()

    async def run() -> None:
        async with part:
            try:
                entered.set()
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0.01)
                closed.set()

    task = asyncio.create_task(run())
    await entered.wait()
    part.stop(Stop.CANCELLED)
    with pytest.raises(Stopped):
        await task
    assert closed.is_set()


async def test_an_error_while_the_stop_unwinds_is_its_cause() -> None:
    part = Stoppable()
    entered = asyncio.Event()

    async def run() -> None:
        async with part:
            try:
                entered.set()
                await asyncio.Event().wait()
            finally:
                raise ConnectionError("while closing")

    task = asyncio.create_task(run())
    await entered.wait()
    part.stop(Stop.CANCELLED)
    with pytest.raises(Stopped) as stopped:
        await task
    assert isinstance(stopped.value.__cause__, ConnectionError)
    assert task.cancelling() == 0


async def test_an_error_of_the_part_itself_is_not_a_stop() -> None:
    part = Stoppable()
    with pytest.raises(ZeroDivisionError):
        async with part:
            raise ZeroDivisionError
    assert part.reason is None


async def test_a_timeout_within_the_part_is_a_timeout() -> None:
    part = Stoppable()
    with pytest.raises(TimeoutError):
        async with part, asyncio.timeout(0.01):
            await asyncio.Event().wait()


async def test_a_timeout_around_the_part_is_a_timeout() -> None:
    part = Stoppable()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01), part:
            await asyncio.Event().wait()
    assert part.reason is None

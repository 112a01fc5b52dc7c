"""The hook that ends streams on a signal."""

import asyncio
import signal
import threading
from collections.abc import Iterator
from types import FrameType

import pytest

from rejoin.api.drain import drain_on_signal

SIGNALS = (signal.SIGTERM, signal.SIGINT)


@pytest.fixture
def heard() -> Iterator[list[int]]:
    """What the handlers of a server, uvicorn's, were called with; restored afterwards."""
    numbers: list[int] = []

    def handle(number: int, _: FrameType | None) -> None:
        numbers.append(number)

    before = {number: signal.signal(number, handle) for number in SIGNALS}
    yield numbers
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", SIGNALS)
async def test_a_signal_drains_and_reaches_the_server(heard: list[int], number: int) -> None:
    drained = asyncio.Event()
    with drain_on_signal(drained.set):
        signal.raise_signal(number)
        async with asyncio.timeout(5):
            await drained.wait()
    assert heard == [number]


async def test_afterwards_the_server_alone_hears(heard: list[int]) -> None:
    drained: list[None] = []
    with drain_on_signal(lambda: drained.append(None)):
        pass
    signal.raise_signal(signal.SIGTERM)
    await asyncio.sleep(0)
    assert (heard, drained) == ([signal.SIGTERM], [])


async def test_a_handler_that_came_later_stays(heard: list[int]) -> None:
    def later(*_: object) -> None:
        """Stand for another library's."""

    with drain_on_signal(lambda: None):
        signal.signal(signal.SIGTERM, later)
    assert signal.getsignal(signal.SIGTERM) is later
    assert heard == []


def test_in_another_thread_nothing_is_hooked(heard: list[int]) -> None:
    seen: list[bool] = []

    async def look() -> None:
        before = signal.getsignal(signal.SIGTERM)
        with drain_on_signal(lambda: None):
            seen.append(signal.getsignal(signal.SIGTERM) is before)

    thread = threading.Thread(target=lambda: asyncio.run(look()))
    thread.start()
    thread.join(5)
    assert (seen, heard) == ([True], [])


async def test_one_that_ended_first_is_not_called_by_a_later_ones_signal(heard: list[int]) -> None:
    drained: list[str] = []
    first = drain_on_signal(lambda: drained.append("first"))
    second = drain_on_signal(lambda: drained.append("second"))
    with first:
        second.__enter__()
    signal.raise_signal(signal.SIGTERM)
    await asyncio.sleep(0)
    second.__exit__(None, None, None)
    assert drained == ["second"]
    assert heard == [signal.SIGTERM]

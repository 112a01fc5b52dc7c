"""SIGTERM and SIGINT end the streams, so that their clients come back to another process.

uvicorn waits for open connections and tells the lifespan only afterwards: without this hook a
process with one open stream would not end before it is forced to.
"""

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def drain_on_signal(drain: Callable[[], None]) -> Iterator[None]:
    """Call `drain` in the running loop on a signal, before whoever handled it so far.

    In another thread than the main one, where no signals arrive, nothing happens.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    running = True

    def handle(number: int, frame: FrameType | None) -> None:
        if running:
            loop.call_soon_threadsafe(drain)
        previous = before[signal.Signals(number)]
        if callable(previous):
            previous(number, frame)
        elif previous == signal.SIG_DFL:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

    for number in _SIGNALS:
        signal.signal(number, handle)
    try:
        yield
    finally:
        running = False  # another application, which began later, may still pass signals on to here
        for number, previous in before.items():
            if signal.getsignal(number) is handle:
                signal.signal(number, previous)

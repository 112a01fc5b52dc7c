"""Reads a message on the terminal to its end: drops, the end and Ctrl-C, for `chat` and `tail`."""

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

from rejoin.client.client import Client
from rejoin.client.commands.asking import Asker
from rejoin.client.commands.printing import Printer, note, printable
from rejoin.client.reading import changes
from rejoin.client.tail import Tail
from rejoin.shared.errors import SettingsError
from rejoin.shared.fold import Kept, Message
from rejoin.shared.ids import EventId
from rejoin.shared.settings import Settings

INTERRUPTED: Final = 130  # 128 and the number of SIGINT, as shells say it
FAILED: Final = 1
WAITS: Final = 3


def server_url(url: str | None, settings: Settings) -> str:
    """Return `url`, or where the settings say that the server listens.

    Raises:
        SettingsError: they name no port.
    """
    if url is not None:
        return url
    if settings.port == 0:
        raise SettingsError("REJOIN_PORT=0 names no port: say where the server is with --url")
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"http://{host}:{settings.port}"


def open_tail(client: Client, message_id: str, after: str | None = None) -> Tail:
    """Return a tail that tells of its drops on stderr."""

    def dropped(reason: str, seconds: float) -> None:
        note(f"the connection dropped ({printable(reason)}); back in {seconds:.1f} s")

    position = None if after is None else EventId.parse(after)
    return client.tail(message_id, position, on_drop=dropped)


async def print_all(
    tail: Tail, printer: Printer, message: Message | None = None, asker: Asker | None = None
) -> int:
    """Print a message to its end; return the exit code that says how it ended.

    `message`, a new one, is then what was read. Where `asker` has nobody to ask, a message that
    waits is left so.
    """
    message = message or Message()
    try:
        async with tail:
            async for change in changes(tail, message):
                if asker is not None:
                    asker.withdraw()
                printer.change(change, message)
                if asker is not None and asker.heed(change.event.name, message):
                    return WAITS
    finally:
        printer.end(message)
    return _exit_code(message.end)


def _exit_code(end: Kept | None) -> int:
    if end is None:
        return 0  # it had ended before, and was seen to
    if end.name == "failed":
        again = "; it may work when sent again" if end.fields.get("retryable") else ""
        said = f"{end.fields.get('code')}: {end.fields.get('message')}"
        note(f"the message failed: {printable(said)}{again}")
        return FAILED
    reason = str(end.fields.get("finish_reason"))
    if reason != "stop":
        note(f"the answer ended early: {printable(reason)}")
    return INTERRUPTED if reason == "cancelled" else 0


@asynccontextmanager
async def on_interrupt(act: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """Within the block a Ctrl-C runs `act`; a second one ends the block's task."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    acting: list[asyncio.Future[None]] = []

    def interrupted() -> None:
        if acting and task is not None:
            task.cancel()
        else:
            acting.append(asyncio.ensure_future(act()))

    loop.add_signal_handler(signal.SIGINT, interrupted)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGINT)
        for future in acting:
            future.cancel()
        await asyncio.gather(*acting, return_exceptions=True)

"""A TCP proxy that cuts connections after given or random numbers of bytes, either way."""

import asyncio
import random
import socket
import struct
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import repeat
from typing import Final

RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER 0: closing sends RST, not FIN


@dataclass(frozen=True, slots=True)
class Cut:
    """Where one connection breaks: after so many bytes to the client, or to the server.

    None: not by this direction's bytes. `reset`: by RST, as a machine that went away and came
    back; else by FIN, as a proxy that was restarted.
    """

    down: int | None = None
    up: int | None = None
    reset: bool = False


UNCUT: Final = Cut()


def random_cuts(seed: int, *, least: int, most: int, count: int | None = None) -> Iterator[Cut]:
    """Yield cuts of `least` to `most` bytes to the client, FIN and RST mixed; then none.

    `count` None: without an end. The same seed gives the same cuts.
    """
    chance = random.Random(seed)
    for _ in repeat(None) if count is None else repeat(None, count):
        yield Cut(down=chance.randint(least, most), reset=chance.random() < 0.5)


class CuttingProxy:
    """Listens on 127.0.0.1:`port` and passes bytes on to the target, until a cut.

    `target_port` may be changed: connections that come later lead there.
    """

    def __init__(self, target_port: int, cuts: Iterable[Cut]) -> None:
        self.port = 0
        self.connections = 0
        self.cut_connections = 0
        self.target_port = target_port
        self._cuts = iter(cuts)
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def url(self) -> str:
        """The root of the target behind it, without a slash at the end."""
        return f"http://127.0.0.1:{self.port}"

    async def serve(
        self, client_reader: asyncio.StreamReader, client_writer: asyncio.StreamWriter
    ) -> None:
        """Pass one connection on. The event loop's server calls it."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        cut = next(self._cuts, UNCUT)
        writers = [client_writer]
        self._writers.add(client_writer)
        try:
            server_reader, server_writer = await asyncio.open_connection(
                "127.0.0.1", self.target_port
            )
            writers.append(server_writer)
            was_cut = await _pass_both_ways(
                _Way(server_reader, client_writer, cut.down),
                _Way(client_reader, server_writer, cut.up),
            )
            if was_cut:
                self.cut_connections += 1
                if cut.reset:
                    _reset_on_close(client_writer)
        except OSError:
            pass  # the target is away: the client sees a closed connection, as with any proxy
        finally:
            for writer in writers:
                writer.close()
            self._writers.discard(client_writer)
            self._tasks.discard(task)

    async def cut_all(self) -> None:
        """Cut every open connection now."""
        # Not by cancelling: Python 3.11's streams would print a traceback for each.
        for writer in list(self._writers):
            writer.transport.abort()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@dataclass(slots=True)
class _Way:
    """One direction: from where, to where, how many bytes."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    left: int | None

    async def run(self) -> bool:
        """Pass bytes on to the end (False) or to the cut (True)."""
        while self.left is None or self.left > 0:
            got = await self.reader.read(65536 if self.left is None else min(65536, self.left))
            if not got:
                return False
            self.writer.write(got)
            await self.writer.drain()
            if self.left is not None:
                self.left -= len(got)
        return True


async def _pass_both_ways(down: _Way, up: _Way) -> bool:
    """Pass on until the server ends or a direction is cut; a client's half-close is passed."""
    tasks = {asyncio.create_task(way.run()): way for way in (down, up)}
    try:
        waiting = set(tasks)
        while waiting:
            ready, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in ready:
                if task.result():
                    return True
                if tasks[task] is down:
                    return False
            up.writer.write_eof()
        return False
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _reset_on_close(writer: asyncio.StreamWriter) -> None:
    connection: socket.socket = writer.get_extra_info("socket")
    # What is in the transport's own buffer is dropped with an abort; RST drops the kernel's.
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    writer.transport.abort()


@asynccontextmanager
async def cutting_proxy(target_port: int, cuts: Iterable[Cut] = ()) -> AsyncIterator[CuttingProxy]:
    """Run a proxy; each new connection takes the next of `cuts`, and after the last none."""
    proxy = CuttingProxy(target_port, cuts)
    # As many as the API's own: beyond asyncio's hundred a client would believe itself connected.
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0, backlog=2048)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        await proxy.cut_all()

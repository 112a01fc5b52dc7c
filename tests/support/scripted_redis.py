"""A Redis that only says what a test tells it to: for orders that a real one shows too rarely."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import hiredis

Command = tuple[bytes, ...]


class ScriptedRedis:
    """Takes connections, keeps their commands, and answers nothing itself but PING and CLIENT."""

    def __init__(self) -> None:
        self.connections = 0
        self.commands: list[Command] = []
        self.greet: Callable[[], bytes] = lambda: b""
        self.hang_up = False
        self.url = ""
        self._writers: list[asyncio.StreamWriter] = []
        self._news = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Read one connection's commands to its end."""
        self.connections += 1
        self._news.set()
        self._writers.append(writer)
        parser = hiredis.Reader()
        writer.write(self.greet())
        try:
            while not self.hang_up and (read := await reader.read(65536)):
                parser.feed(read)
                while (command := parser.gets()) is not False:
                    self._take(tuple(command), writer)
        except ConnectionError:
            pass
        finally:
            writer.close()

    def _take(self, command: Command, writer: asyncio.StreamWriter) -> None:
        if command[0] == b"PING":
            writer.write(b"+PONG\r\n")
            return
        if command[0] == b"CLIENT":  # how redis-py begins
            writer.write(b"+OK\r\n")
            return
        self.commands.append(command)
        self._news.set()

    async def until(self, *commands: Command) -> None:
        """Wait until exactly these commands have come; TimeoutError after 5 s."""
        await self._until(lambda: self.commands == list(commands))

    async def until_commands(self, count: int) -> None:
        """Wait until so many commands have come; TimeoutError after 5 s."""
        await self._until(lambda: len(self.commands) >= count)

    async def until_connections(self, count: int) -> None:
        """Wait until it was dialled so often; TimeoutError after 5 s."""
        await self._until(lambda: self.connections >= count)

    async def _until(self, seen: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not seen():
                self._news.clear()
                await self._news.wait()

    def confirm(self, *channels: bytes, kind: bytes = b"subscribe") -> None:
        """Send a confirmation for each channel over the newest connection."""
        self.say(b"".join(_array([kind, name]) + b":1\r\n" for name in channels))

    def publish(self, channel: bytes, payload: bytes) -> None:
        """Send a published message over the newest connection."""
        self.say(_array([b"message", channel], payload))

    def say(self, raw: bytes) -> None:
        """Send bytes over the newest connection."""
        self._writers[-1].write(raw)

    def cut(self) -> None:
        """Close the newest connection."""
        self._writers[-1].transport.abort()

    def close(self) -> None:
        """Close every connection."""
        for writer in self._writers:
            writer.transport.abort()


def _array(parts: Sequence[bytes], *more: bytes) -> bytes:
    whole = [*parts, *more]
    return b"*3\r\n" + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in whole)


@asynccontextmanager
async def scripted_redis() -> AsyncIterator[ScriptedRedis]:
    """Serve on a free port of 127.0.0.1."""
    scripted = ScriptedRedis()
    server = await asyncio.start_server(scripted.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    scripted.url = f"redis://127.0.0.1:{port}/0"
    try:
        yield scripted
    finally:
        server.close()
        scripted.close()
        await server.wait_closed()

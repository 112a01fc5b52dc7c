"""A Redis of our own on a free port of this machine, its data below the data directory."""

import asyncio
import os
import secrets
import signal
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from rejoin.client.commands.aof_repair import repair
from rejoin.client.commands.children import Child, Command, module
from rejoin.client.commands.data_lock import DataLock
from rejoin.client.commands.ports import free_port
from rejoin.client.commands.redis_binaries import Choice
from rejoin.shared import redis_check
from rejoin.shared.errors import SettingsError, Unavailable

_START_SECONDS: Final = 30.0  # a long append-only file is read first
_STOP_SECONDS: Final = 10.0
_LOOK_SECONDS: Final = 0.02
_TRIES: Final = 3  # another process may take the port that was free a moment ago

# Given by stdin, for everybody can read a command line and the password is in it. The file's
# names are Redis' own defaults; aof-load-truncated (yes by default) bears a half-written end.
_CONFIG: Final = """\
port {port}
bind 127.0.0.1
protected-mode yes
requirepass {password}
daemonize no
dir ./
save ""
appendonly yes
appendfsync everysec
aof-load-truncated yes
maxmemory-policy noeviction
always-show-logo no
"""


class EmbeddedRedis:
    """One Redis, ended with `aclose` or with this process, whatever ends it.

    On Linux the kernel sees to that; elsewhere a process that watches us (leash.py).
    """

    def __init__(self, choice: Choice, data_dir: Path) -> None:
        self.choice = choice
        self.directory = data_dir / "redis"
        self.url = ""
        self.notes: list[str] = []
        self._child: Child | None = None
        self._lock: DataLock | None = None

    @property
    def child(self) -> Child:
        """Its process, which may be started again after its end: same port, same data."""
        assert self._child is not None, "the embedded Redis was not started"  # noqa: S101
        return self._child

    @property
    def log(self) -> Path:
        """What the server itself says."""
        return self.directory / "redis.log"

    async def start(self) -> None:
        """Start it and wait until it answers.

        Raises:
            SettingsError: the data directory is in use, cannot be written, or was written by a
                newer Redis.
            Unavailable: it does not start; the text ends with its own last words.
        """
        self._lock = await asyncio.to_thread(DataLock.take, self.directory)
        newer = (self.directory / "appendonlydir").exists()
        if newer and self.choice.path is not None and self.choice.major < 7:
            raise SettingsError(
                f"{self.directory} was written by Redis 7 or later and {self.choice.said} cannot"
                " read it: install that Redis again, or remove the directory and its messages"
            )
        for _ in range(_TRIES):
            await self._start_once()
            if await self._answers():
                return
            said = self.log.read_text(errors="replace")
            if "Address already in use" in said:
                continue
            if self.choice.path is not None and "Bad file format" in said:
                self.notes.append(await asyncio.to_thread(repair, self.choice.path, self.directory))
                continue
            break
        last = "; ".join(said.strip().splitlines()[-3:])
        raise Unavailable(f"{self.choice.said} does not start (see {self.log}): {last}")

    async def _start_once(self) -> None:
        port, password = free_port("127.0.0.1"), secrets.token_urlsafe(24)
        lock = self._lock
        assert lock is not None  # noqa: S101  taken by start
        fake = self.choice.path is None
        self.log.write_bytes(b"")
        self._child = Child(
            Command(
                "Redis",
                [*module("rejoin.client.commands.fake_redis"), str(port)]
                if fake
                else [str(self.choice.path), "-"],
                os.environ,
                stdin=b"" if fake else _CONFIG.format(port=port, password=password).encode(),
                output=self.log.absolute(),
                directory=self.directory,
                keep_open=[lock.file],
                # It writes out what it has; even so it is gone within milliseconds.
                death_signal=signal.SIGTERM,
            )
        )
        await self._child.start()
        self.url = f"redis://{'' if fake else f':{password}@'}127.0.0.1:{port}/0"

    async def _answers(self) -> bool:
        """Wait until it answers (True) or has ended (False), bounded."""
        ended = asyncio.create_task(self.child.wait())
        try:
            async with asyncio.timeout(_START_SECONDS):
                while not ended.done():
                    if await redis_check.answers(self.url):
                        return True
                    await asyncio.wait({ended}, timeout=_LOOK_SECONDS)
        except TimeoutError:
            self.child.kill()
        finally:
            ended.cancel()
        return False

    def kill(self) -> None:
        """End it at once."""
        if self._child is not None:
            self._child.kill()

    async def aclose(self) -> None:
        """End it, within 10 s, and let go of its directory."""
        if self._child is not None:
            await self._child.stop(_STOP_SECONDS)
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            await self.aclose()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

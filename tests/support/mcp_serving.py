"""MCP servers for tests, as the settings file lists them, and a worker's tools with theirs."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final

from rejoin.shared.settings_file import McpServer
from rejoin.worker.tools.base import Call, Report
from rejoin.worker.tools.bounded import Outcome, run_bounded
from rejoin.worker.tools.mcp_connection import Connection
from rejoin.worker.tools.mcp_servers import serving
from rejoin.worker.tools.registry import Tools
from rejoin.worker.validation import Validation
from tests.support.redis_server import free_port

SECONDS: Final = 60.0  # to start a server, on a machine that is busy

_SERVER: Final = Path(__file__).with_name("mcp_server.py")
_SCRIPT: Final = Path(__file__).with_name("mcp_script.py")


class Server:
    """A server that notes what it does. `pid` is the last one's that was started."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "notes"

    def notes(self, what: str | None = None) -> list[dict[str, Any]]:
        """What it noted, of all its lives."""
        if not self.path.exists():
            return []
        notes = [json.loads(line) for line in self.path.read_text(encoding="utf-8").splitlines()]
        return [one for one in notes if what in (None, one["what"])]

    @property
    def pid(self) -> int:
        """The process that serves."""
        return int(self.notes("started")[-1]["pid"])

    def kill(self) -> None:
        """kill -9."""
        os.kill(self.pid, signal.SIGKILL)

    @property
    def listed(self) -> McpServer:
        """How the settings file lists it."""
        return McpServer(command=[sys.executable, str(_SERVER), str(self.path)])


class HttpServer(Server):
    """One over HTTP, which nobody but the test starts again."""

    def __init__(self, directory: Path, *words: str) -> None:
        super().__init__(directory)
        self.port = free_port()
        self._words = words
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it listens."""
        command = [sys.executable, str(_SERVER), str(self.path), "http", str(self.port)]
        self._process = subprocess.Popen([*command, *self._words], stdin=subprocess.DEVNULL)
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            assert self._process.poll() is None, "the MCP server has ended"
            with socket.socket() as one:
                if one.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.05)
        raise AssertionError("the MCP server does not listen")

    def kill(self) -> None:
        """kill -9, and wait until it has ended; harmless when it does not run."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(SECONDS)

    @property
    def listed(self) -> McpServer:
        """How the settings file lists it."""
        return McpServer(url=f"http://127.0.0.1:{self.port}/mcp")


@contextmanager
def http_server(directory: Path, *words: str) -> Iterator[HttpServer]:
    """One that runs for the block."""
    server = HttpServer(directory, *words)
    try:
        server.start()
        yield server
    finally:
        server.kill()


def script(how: str, **more: Any) -> McpServer:
    """A server that misbehaves as mcp_script.py says."""
    return McpServer(command=[sys.executable, "-I", "-S", str(_SCRIPT), how], **more)


class Served:
    """A worker's tools, with those of the server `t`."""

    def __init__(self, tools: Tools, connections: list[Connection]) -> None:
        self.tools = tools
        self.connection = connections[0]

    async def call(
        self,
        name: str,
        arguments: Mapping[str, object] | None = None,
        *,
        call_id: str = "call_1",
        report: Report = lambda name, value: None,
    ) -> Outcome:
        """Call a tool of the server as a worker does."""
        tool = self.tools.find(f"t__{name}")
        assert tool is not None, f"there is no tool t__{name} among {self.tools.names()}"
        call = Call("message", "conversation", 1, call_id, report=report)
        return await run_bounded(tool, arguments or {}, call, most_bytes=65_536)


@asynccontextmanager
async def served(
    server: McpServer, *, tools: Tools | None = None, ready_seconds: float = SECONDS
) -> AsyncIterator[Served]:
    """Serve one server, `t`, for the block."""
    tools = Tools() if tools is None else tools
    validation = Validation()
    try:
        async with serving({"t": server}, tools, validation, ready_seconds=ready_seconds) as all_of:
            yield Served(tools, all_of)
    finally:
        await validation.aclose()

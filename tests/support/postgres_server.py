"""Start a real PostgreSQL on a free port of 127.0.0.1, and break it on purpose."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Self

import pytest

from tests.support.redis_server import free_port

START_SECONDS: Final = 60.0
STOP_SECONDS: Final = 20.0
MISSING: Final = "no PostgreSQL: install Debian's postgresql"
USER: Final = "postgres"  # it refuses to run as root


def find_binaries() -> Path | None:
    """Return the folder of initdb and postgres: where Debian puts it, else on PATH, else None."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=_version)
    on_path = shutil.which("postgres")
    if found or on_path is None:
        return found[-1].parent if found else None
    return Path(on_path).resolve().parent


def _version(postgres: Path) -> int:
    return int(postgres.parent.parent.name.partition(".")[0])


def need_binaries() -> Path:
    """Return the folder; without one skip the test, but fail it where CI=true."""
    binaries = find_binaries()
    if binaries is not None:
        return binaries
    if os.environ.get("CI", "").lower() == "true":
        pytest.fail(f"{MISSING} (CI=true: this test must run)")
    pytest.skip(MISSING)


class PostgresServer:
    """One cluster in a directory of its own; sync, bounded, killable."""

    def __init__(self, binaries: Path, directory: Path) -> None:
        self.port = free_port()
        self.log = directory / "postgres.log"
        self._binaries = binaries
        self._directory = directory
        self._data = directory / "data"
        self._process: subprocess.Popen[bytes] | None = None
        self._user = USER if os.geteuid() == 0 else None
        if self._user is not None:
            account = pwd.getpwnam(self._user)
            os.chown(directory, account.pw_uid, account.pw_gid)

    def url(self, database: str = "postgres") -> str:
        """What REJOIN_DATABASE_URL takes."""
        return f"postgresql+asyncpg://{USER}@127.0.0.1:{self.port}/{database}"

    def initialise(self) -> Self:
        """Make the cluster; it trusts whoever comes from this machine."""
        command = ["initdb", "--pgdata", str(self._data), "--username", USER, "--auth", "trust"]
        self._run([*command, "--encoding", "UTF8", "--no-locale", "--no-sync"])
        return self

    def start(self) -> Self:
        """Start, or start again on the same port with what the directory holds."""
        assert self._process is None, "PostgreSQL is running already"
        command = [str(self._binaries / "postgres"), "-D", str(self._data), "-p", str(self.port)]
        command += ["-h", "127.0.0.1", "-k", str(self._directory)]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, user=self._user, cwd=self._directory
            )
        self._wait_until_it_answers()
        return self

    def create(self, database: str) -> str:
        """Make an empty database; its URL."""
        self.sql(f'CREATE DATABASE "{database}"')
        return self.url(database)

    def drop(self, database: str) -> None:
        """Remove a database, whoever is connected."""
        self.sql(f'DROP DATABASE IF EXISTS "{database}" WITH (FORCE)')

    def sql(self, statement: str, database: str = "postgres") -> str:
        """Run a statement; what it returns, unaligned."""
        where = ["-h", "127.0.0.1", "-p", str(self.port), "-U", USER, "-d", database]
        return self._run(["psql", *where, "-qAtX", "-v", "ON_ERROR_STOP=1", "-c", statement])

    def stop(self) -> None:
        """End it in order, whoever is connected; harmless when it does not run."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """End it and all its processes with kill -9, as a machine that dies."""
        process = self._process
        if process is None:
            return
        children = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, check=False
        )
        self._end(signal.SIGKILL)
        for pid in children.stdout.split():
            try:
                os.kill(int(pid), signal.SIGKILL)
            except ProcessLookupError:
                continue

    def pause(self) -> None:
        """SIGSTOP to all its processes: connections are taken by the kernel, nothing answers."""
        self._signal_all(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT, after `pause`."""
        self._signal_all(signal.SIGCONT)

    def _signal_all(self, number: signal.Signals) -> None:
        assert self._process is not None, "PostgreSQL is not running"
        children = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(self._process.pid)], capture_output=True, check=True
        )
        for pid in (self._process.pid, *map(int, children.stdout.split())):
            os.kill(pid, number)

    def _end(self, by: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(by)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(STOP_SECONDS)
            raise

    def _run(self, command: Sequence[str]) -> str:
        done = subprocess.run(
            [str(self._binaries / command[0]), *command[1:]],
            user=self._user,
            cwd=self._directory,
            capture_output=True,
            text=True,
            timeout=START_SECONDS,
            check=False,
        )
        assert done.returncode == 0, f"{command[0]}: {done.stderr[-2000:]}"
        return done.stdout.strip()

    def _wait_until_it_answers(self) -> None:
        process = self._process
        assert process is not None
        end = time.monotonic() + START_SECONDS
        ready = [str(self._binaries / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        while subprocess.run(ready, check=False, cwd=self._directory).returncode != 0:
            if process.poll() is not None or time.monotonic() > end:
                self._end(signal.SIGKILL)
                said = self.log.read_text(errors="replace")[-2000:]
                raise RuntimeError(f"PostgreSQL did not start:\n{said}")
            time.sleep(0.02)


@contextmanager
def postgres_server() -> Iterator[PostgresServer]:
    """Run a server in a directory of its own, ended and removed with the block."""
    binaries = need_binaries()
    with tempfile.TemporaryDirectory(prefix="rejoin-postgres-", ignore_cleanup_errors=True) as name:
        server = PostgresServer(binaries, Path(name)).initialise()
        try:
            yield server.start()
        finally:
            server.stop()

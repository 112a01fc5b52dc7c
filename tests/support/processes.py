"""Start `python -m rejoin.api` and `-m rejoin.worker` as processes of their own, and break them."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, Self
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

from tests.support.redis_server import RedisServer, free_port

READY_SECONDS: Final = 60.0
STOP_SECONDS: Final = 15.0
POLL_SECONDS: Final = 0.02
WORKER_KEYS: Final = "rejoin:worker:*"

# What a machine's own environment must not change in a test.
_FOREIGN: Final = ("REJOIN_", "OPENAI_", "ANTHROPIC_", "OPENROUTER_", "OLLAMA_")
_PROXIES: Final = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")

_UGLY: Final = (
    "Traceback (most recent call last)",
    "Exception in ASGI application",
    "exception was never retrieved",
    "Task was destroyed but it is pending",
    "was never awaited",
    "Unclosed ",
)

# Every process of the present test and the living ones: conftest prints their logs on a failure.
started: "list[Process]" = []


class Process:
    """One process of Rejoin, with its log in a file: `python -m module *arguments`."""

    module: str
    arguments: tuple[str, ...] = ()

    def __init__(
        self, name: str, redis_url: str, directory: Path, settings: Mapping[str, str]
    ) -> None:
        self.name = name
        self.log = directory / f"{name}.log"
        self.marked = 0
        self._directory = directory
        self._environment = _environment(redis_url, directory, settings)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        """Whether it was started and has not exited."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process is not None, f"{self.name} was not started"
        return self._process.pid

    def launch(self) -> Self:
        """Start it, or start it again with the same settings; do not wait."""
        assert not self.running, f"{self.name} is running already"
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", self.module, *self.arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._directory,
                env=self._environment,
            )
        if self not in started:
            started.append(self)
        return self

    def start(self) -> Self:
        """Start it and wait until it is ready."""
        raise NotImplementedError

    def terminate(self, seconds: float = STOP_SECONDS) -> int:
        """Send SIGTERM and wait: the exit code. Killed, and a failure, after `seconds`."""
        assert self._process is not None, f"{self.name} was not started"
        self._process.terminate()
        return self.wait(seconds)

    def signal_stop(self) -> None:
        """Send SIGTERM and do not wait."""
        os.kill(self.pid, signal.SIGTERM)

    def wait(self, seconds: float = STOP_SECONDS) -> int:
        """Wait until it has exited: the exit code. Killed, and a failure, after `seconds`."""
        assert self._process is not None, f"{self.name} was not started"
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"{self.name} had not exited {seconds} s later") from None

    def kill(self) -> None:
        """kill -9; harmless when it does not run."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(STOP_SECONDS)

    def pause(self) -> None:
        """SIGSTOP: as a machine that stalls."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT, after `pause`."""
        os.kill(self.pid, signal.SIGCONT)

    def said(self, since: int = 0) -> str:
        """Return what it logged after byte `since`."""
        if not self.log.exists():
            return ""
        return self.log.read_bytes()[since:].decode(errors="replace")

    def mark(self) -> None:
        """Let `assert_no_traceback` look only at what is logged from now on."""
        self.marked = self.log.stat().st_size if self.log.exists() else 0

    def assert_no_traceback(self) -> None:
        """Fail if it logged a traceback, or a task or resource left behind, since the mark."""
        said = self.said(self.marked)
        found = [sign for sign in _UGLY if sign in said]
        assert not found, f"{self.name} logged {found[0]!r}:\n{said[-6000:]}"

    def until(self, ready: Callable[[], bool], *, within: float = READY_SECONDS) -> Self:
        """Wait until `ready()`; fail when the process exits before, or after the bound."""
        end = time.monotonic() + within
        while not ready():
            if not self.running:
                raise AssertionError(f"{self.name} exited before it was ready:\n{self.said()}")
            if time.monotonic() > end:
                self.kill()
                raise AssertionError(f"{self.name} was not ready in time:\n{self.said()}")
            time.sleep(POLL_SECONDS)
        return self


class Api(Process):
    """`python -m rejoin.api` on a port of its own."""

    module = "rejoin.api"

    def __init__(
        self, name: str, redis_url: str, directory: Path, settings: Mapping[str, str]
    ) -> None:
        self.port = free_port()
        own = {"REJOIN_HOST": "127.0.0.1", "REJOIN_PORT": str(self.port), **settings}
        super().__init__(name, redis_url, directory, own)

    @property
    def url(self) -> str:
        """The root of its HTTP API, without a slash at the end."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> Self:
        """Start it and wait until /readyz is 200."""
        return self.launch().until(lambda: self._answers("/readyz"))

    def start_unready(self) -> Self:
        """Start it and wait until /healthz is 200: for a Redis that is away."""
        return self.launch().until(lambda: self._answers("/healthz"))

    def _answers(self, path: str) -> bool:
        opener = build_opener(ProxyHandler({}))
        try:
            with opener.open(self.url + path, timeout=5) as response:
                return bool(response.status == 200)
        except (URLError, OSError):
            return False


class Worker(Process):
    """`python -m rejoin.worker`; ready when its key is in Redis."""

    module = "rejoin.worker"

    def __init__(
        self, name: str, redis: RedisServer, directory: Path, settings: Mapping[str, str]
    ) -> None:
        super().__init__(name, redis.url, directory, settings)
        self.worker_id = ""  # what a snapshot's attempts call it, once it is ready
        self._redis = redis

    def start(self) -> Self:
        """Start it and wait until Redis holds a worker's key that was not there before."""
        with self._redis.client() as client:
            before = set(client.keys(WORKER_KEYS))
            self.launch().until(lambda: not before.issuperset(client.keys(WORKER_KEYS)))
            (key,) = set(client.keys(WORKER_KEYS)) - before
        self.worker_id = key.decode().removeprefix(WORKER_KEYS.rstrip("*"))
        return self


class Stack:
    """Processes on one Redis: as many APIs and workers as a test starts."""

    def __init__(
        self, redis: RedisServer, directory: Path, settings: Mapping[str, str], ends: ExitStack
    ) -> None:
        self.redis = redis
        self.apis: list[Api] = []
        self.workers: list[Worker] = []
        self._directory = directory
        self._settings = dict(settings)
        self._ends = ends

    @property
    def api(self) -> Api:
        """The first API."""
        return self.apis[0]

    @property
    def worker(self) -> Worker:
        """The first worker."""
        return self.workers[0]

    @property
    def url(self) -> str:
        """The first API's root."""
        return self.api.url

    def new_api(self, **settings: str) -> Api:
        """Prepare one more API, with `settings` over the stack's; not started."""
        name = f"api-{len(self.apis) + 1}"
        api = Api(name, self.redis.url, self._directory, self._settings | settings)
        self.apis.append(api)
        self._ends.callback(_end, api)
        return api

    def new_worker(self, **settings: str) -> Worker:
        """Prepare one more worker, with `settings` over the stack's; not started."""
        name = f"worker-{len(self.workers) + 1}"
        worker = Worker(name, self.redis, self._directory, self._settings | settings)
        self.workers.append(worker)
        self._ends.callback(_end, worker)
        return worker

    def assert_no_traceback(self) -> None:
        """Fail if any process logged one."""
        for process in (*self.apis, *self.workers):
            process.assert_no_traceback()


@contextmanager
def rejoin_stack(
    redis: RedisServer,
    *,
    apis: int = 1,
    workers: int = 1,
    settings: Mapping[str, str] | None = None,
) -> Iterator[Stack]:
    """Run APIs and workers on one Redis, ended with the block."""
    with (
        TemporaryDirectory(prefix="rejoin-", ignore_cleanup_errors=True) as name,
        ExitStack() as ends,
    ):
        stack = Stack(redis, Path(name), settings or {}, ends)
        launched: list[Process] = [stack.new_api().launch() for _ in range(apis)]
        for _ in range(workers):
            stack.new_worker().start()
        for process in launched:
            assert isinstance(process, Api)
            process.until(partial(process._answers, "/readyz"))
        yield stack


def _end(process: Process) -> None:
    if not process.running:
        return
    process.resume()
    process.signal_stop()
    try:
        process.wait()
    finally:
        process.kill()


def _environment(redis_url: str, directory: Path, settings: Mapping[str, str]) -> dict[str, str]:
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(_FOREIGN) and name.lower() not in _PROXIES
    }
    environment |= {
        "REJOIN_REDIS_URL": redis_url,
        "REJOIN_DATA_DIR": str(directory / "data"),
        "REJOIN_DRAIN_SECONDS": "0",  # a test that wants a worker's grace says so
        "PYTHONUNBUFFERED": "1",
        "PYTHONFAULTHANDLER": "1",
    }
    return environment | dict(settings)

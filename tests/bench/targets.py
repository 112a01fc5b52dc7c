"""What tails are opened on: Rejoin's API, the XREAD baseline, nginx with nchan."""

import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Protocol
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

from tests.bench.child import Answer, Child
from tests.bench.nchan import nchan
from tests.support.processes import Stack, rejoin_stack
from tests.support.redis_server import RedisServer, free_port

_READY_SECONDS: Final = 20.0


class Source(Protocol):
    """What publishes to a target."""

    def prepare(self, messages: int) -> list[str]:
        """Make messages; return the paths of their streams."""

    def publish(self, per_message: float, seconds: float, mark_every: int) -> Answer:
        """Publish at that rate; return the publisher's answer."""


@dataclass(frozen=True, slots=True)
class Target:
    """A server of event streams: the process that is measured, and what publishes to it."""

    port: int
    pid: int
    source: Source
    opening_frames: int  # events that every stream begins with


class _Logs:
    """Rejoin's own logs, which the XREAD baseline reads too."""

    def __init__(self, publisher: Child) -> None:
        self._publisher = publisher

    def prepare(self, messages: int) -> list[str]:
        ids = self._publisher.ask("prepare", count=messages)["message_ids"]
        assert isinstance(ids, list)
        return [f"/api/messages/{message_id}/events" for message_id in ids]

    def publish(self, per_message: float, seconds: float, mark_every: int) -> Answer:
        return self._publisher.ask(
            "publish", per_message=per_message, seconds=seconds, mark_every=mark_every
        )


class _Channels:
    """nchan's channels, posted to over HTTP."""

    def __init__(self, posts: Child) -> None:
        self._posts = posts
        self._messages = 0

    def prepare(self, messages: int) -> list[str]:
        self._messages = messages
        return [f"/sub/m{number}" for number in range(messages)]

    def publish(self, per_message: float, seconds: float, mark_every: int) -> Answer:
        return self._posts.ask(
            "publish",
            messages=self._messages,
            per_message=per_message,
            seconds=seconds,
            mark_every=mark_every,
        )


@contextmanager
def rejoin(
    redis: RedisServer, *, workers: int, settings: Mapping[str, str] | None = None
) -> Iterator[Stack]:
    """The API and workers as they are deployed, killed with the block: nobody waits for them."""
    quiet = {"REJOIN_LOG_LEVEL": "warning"}
    with rejoin_stack(redis, workers=workers, settings=quiet | dict(settings or {})) as stack:
        try:
            yield stack
        finally:
            for process in (*stack.workers, *stack.apis):
                process.kill()


@contextmanager
def rejoin_target(redis: RedisServer) -> Iterator[Target]:
    """`python -m rejoin.api`."""
    with (
        rejoin(redis, workers=0) as stack,
        Child("publisher", redis.url) as publisher,
    ):
        yield Target(stack.api.port, stack.api.pid, _Logs(publisher), 1)


@contextmanager
def xread_target(redis: RedisServer) -> Iterator[Target]:
    """The baseline: one XREAD a client."""
    with xread_server(redis) as (port, pid), Child("publisher", redis.url) as publisher:
        yield Target(port, pid, _Logs(publisher), 1)


@contextmanager
def nchan_target(redis: RedisServer) -> Iterator[Target]:
    """The peer."""
    with nchan(redis) as server, Child("nchan_publisher", str(server.port)) as posts:
        yield Target(server.port, server.pid, _Channels(posts), 0)


@contextmanager
def xread_server(redis: RedisServer) -> Iterator[tuple[int, int]]:
    """The baseline's port and process."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.bench.baseline_xread", str(port), redis.url]
    )
    try:
        _until_ready(port)
        yield port, process.pid
    finally:
        process.kill()  # it would wait for its streams
        process.wait(5)


def open_streams(reader: Child, target: Target, paths: Sequence[str]) -> None:
    """Open a stream for each path, and wait until all have begun.

    Raises:
        RuntimeError: some have not, in time.
    """
    reader.ask("open", port=target.port, paths=list(paths))
    end = time.monotonic() + _READY_SECONDS
    while True:
        report = reader.ask("report")
        if report["begun"] and int(str(report["least"])) >= target.opening_frames:
            return
        if time.monotonic() > end:
            raise RuntimeError(f"not all streams began: {report}")
        time.sleep(0.05)


def _until_ready(port: int) -> None:
    opener = build_opener(ProxyHandler({}))
    end = time.monotonic() + _READY_SECONDS
    while True:
        try:
            with opener.open(f"http://127.0.0.1:{port}/readyz", timeout=5):
                return
        except (URLError, OSError):
            if time.monotonic() > end:
                raise
            time.sleep(0.05)

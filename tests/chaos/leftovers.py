"""What must not be left when everything has settled: keys, jobs, tracebacks, work."""

import re
import time
from collections.abc import Iterator
from typing import Final, cast

import psutil
import redis as redis_py

from rejoin.shared import keys
from tests.chaos.cluster import LEASE_SECONDS, LOG_TTL_SECONDS, Cluster
from tests.support.processes import Process

# A reaper's death, its turn, and what it queues; a saver's death, and its lease.
WITHIN_SECONDS: Final = 4 * LEASE_SECONDS + 14
QUIET_SECONDS: Final = 2.0
MOST_CPU: Final = 0.2
MOST_BYTES: Final = 300 * 1024 * 1024
INDEXES: Final = {keys.QUEUE, keys.OWNERS, keys.OPEN, keys.WAKE, keys.WAKING, keys.UNSAVED}
_OF_A_MESSAGE: Final = re.compile(r"rejoin:\{([0-9a-f-]{36})\}:(record|log|request|answers)")


def wrong_queue(client: "redis_py.Redis") -> list[str]:
    """Say what is still queued, owned, open or unsaved, after waiting for the last reaper."""
    until = time.monotonic() + WITHIN_SECONDS
    while True:
        left = {
            keys.QUEUE: client.zrange(keys.QUEUE, 0, 9),
            keys.OWNERS: cast(list[bytes], client.hkeys(keys.OWNERS))[:10],
            keys.OPEN: client.zrange(keys.OPEN, 0, 9),
            keys.UNSAVED: client.zrange(keys.UNSAVED, 0, 9),
        }
        found = [f"{name} still holds {some}" for name, some in left.items() if some]
        if not found or time.monotonic() > until:
            return found
        time.sleep(0.1)


def wrong_keys(client: "redis_py.Redis", accepted: set[str]) -> Iterator[str]:
    """Say which keys live for ever or too long, and which messages nobody was told of."""
    for name in sorted(key.decode() for key in client.scan_iter(count=1000)):
        life_ms = cast(int, client.pttl(name))
        if name in INDEXES or life_ms == -2:
            continue
        if life_ms == -1:
            yield f"{name} never expires"
        found = _OF_A_MESSAGE.fullmatch(name)
        if found and found[1] not in accepted:
            yield f"{name} is of a message that nobody was told of"
        elif found and life_ms > LOG_TTL_SECONDS * 1000:
            yield f"{name} lives for {life_ms} ms after its message's end"
        elif name.startswith("arq:job:"):
            yield f"{name} outlives its message"


def wrong_processes(running: Cluster) -> Iterator[str]:
    """Say who died, logged a traceback, spins with nothing to do, or holds too much memory."""
    processes: tuple[Process, ...] = (*running.stack.apis, *running.stack.workers)
    for process in processes:
        if not process.running:
            yield f"{process.name} does not run at the end:\n{process.said()[-3000:]}"
        try:
            process.assert_no_traceback()
        except AssertionError as error:
            yield f"{error}"
    seen = {process.name: psutil.Process(process.pid) for process in processes if process.running}
    before = {name: sum(one.cpu_times()[:2]) for name, one in seen.items()}
    time.sleep(QUIET_SECONDS)
    for name, one in seen.items():
        cpu = (sum(one.cpu_times()[:2]) - before[name]) / QUIET_SECONDS
        if cpu > MOST_CPU:
            yield f"{name} uses {cpu:.0%} of a core with nothing to do"
        if one.memory_info().rss > MOST_BYTES:
            yield f"{name} holds {one.memory_info().rss / 2**20:.0f} MiB"

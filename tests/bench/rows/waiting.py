"""Row: what messages that wait for a person cost a worker: slots, Redis commands, CPU."""

import time
from dataclasses import dataclass
from typing import Any, Final, cast

import redis as redis_py

from rejoin.shared import keys
from tests.bench.child import Child
from tests.bench.machine import cpu_seconds
from tests.bench.plan import Plan, say
from tests.bench.posts import Post, poster, sample_starts, until_running
from tests.bench.renewals import LEASE_SECONDS
from tests.bench.samples import Spread
from tests.bench.table import Line
from tests.bench.targets import rejoin
from tests.support.redis_server import redis_server

_SLOTS: Final = 10
_CONSENT: Final = {"name": "consent", "parameters": {"type": "object"}}
_WAITS: Final = "openai/sim?steps=1&tool=consent"
_STEADY: Final = "openai/sim?words=100000&rate=1"
_ALIKE: Final = 10  # commands a second; a poll of each that waits costs more
_WAIT_SECONDS: Final = 120.0


@dataclass(frozen=True, slots=True)
class _Cost:
    """What an idle worker takes, and how soon a message starts in it."""

    commands: float  # a second, those within scripts too
    cpu: float  # of a core
    starts: Spread


def waiting(plan: Plan) -> list[Line]:
    """One worker of ten slots, with none waiting and with all."""
    count = plan.count(500, 100)
    with redis_server() as redis, Child("simulator") as simulator:
        settings = {
            "OPENAI_BASE_URL": f"http://127.0.0.1:{simulator.answer()['port']}/v1",
            "REJOIN_LEASE_SECONDS": f"{LEASE_SECONDS:g}",
            "REJOIN_MAX_JOBS": str(_SLOTS),
        }
        with (
            rejoin(redis, workers=1, settings=settings) as stack,
            poster(stack.api.port, tools=[_CONSENT]) as post,
            redis.client() as client,
        ):
            pid = stack.worker.pid
            say("waiting: none")
            before = _cost(client, pid, post, simulator, plan)
            for _ in range(count):
                post(_WAITS)
            _until_waiting(client, count)
            say(f"waiting: {count} messages")
            after = _cost(client, pid, post, simulator, plan)
            for _ in range(_SLOTS):
                post(_STEADY)
            until_running(simulator, _SLOTS)  # not one slot is taken
    return [
        Line(
            f"none, {count} messages waiting for a person, one worker of {_SLOTS} slots:"
            " Redis commands/s, its CPU, POST to the provider's request p50 / p99",
            f"{before.commands:.0f}, {after.commands:.0f} commands/s;"
            f" {before.cpu:.1%}, {after.cpu:.1%} of a core; {before.starts}, {after.starts}",
            owed="no slot, no polling",
            met=after.commands - before.commands <= _ALIKE,
        )
    ]


def _cost(client: "redis_py.Redis", pid: int, post: Post, simulator: Child, plan: Plan) -> _Cost:
    starts = sample_starts(post, simulator, plan.count(100, 20))
    time.sleep(plan.settle_seconds)
    client.config_resetstat()
    cpu, began = cpu_seconds(pid), time.monotonic()
    time.sleep(LEASE_SECONDS * plan.count(6, 2))  # whatever is done once a lease is in it
    stats = cast(dict[str, Any], client.info("commandstats"))
    took = time.monotonic() - began
    cpu = cpu_seconds(pid) - cpu
    calls = sum(
        stat["calls"]
        for name, stat in stats.items()
        if name not in ("cmdstat_config|resetstat", "cmdstat_info")
    )
    return _Cost(calls / took, cpu / took, starts)


def _until_waiting(client: "redis_py.Redis", count: int) -> None:
    """Wait until so many jobs are put off, and nobody runs any."""
    end = time.monotonic() + _WAIT_SECONDS
    while client.hlen(keys.OWNERS) or _put_off(client) < count:
        if time.monotonic() > end:
            raise RuntimeError(f"only {_put_off(client)} of {count} messages wait")
        time.sleep(0.1)


def _put_off(client: "redis_py.Redis") -> int:
    later = (time.time() + 2 * LEASE_SECONDS) * 1000
    return cast(int, client.zcount(keys.QUEUE, later, "+inf"))

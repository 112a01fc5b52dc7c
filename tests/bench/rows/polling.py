"""Row: what an idle worker asks of Redis, with nothing and with 600 messages running elsewhere."""

import time
from collections.abc import Callable
from typing import Final

import redis as redis_py

from rejoin.shared import keys
from rejoin.shared.ids import new_message_id
from tests.bench.baseline_arq import arq_workers
from tests.bench.plan import Plan, say
from tests.bench.table import Line
from tests.bench.targets import rejoin
from tests.support.redis_server import RedisServer, redis_server

_RUNNING: Final = 600
_LEASE_MS: Final = 600_000  # longer than the measurement: whoever runs them renews elsewhere
_ALIKE: Final = 10  # commands a second; a poll that looks at what runs costs hundreds


def polling(plan: Plan) -> list[Line]:
    """Commands a second, those within scripts too, of one idle worker."""
    with redis_server() as redis, rejoin(redis, workers=1):
        say("polling: Rejoin")
        ours = _commands(redis, plan, _lease_elsewhere)
    with redis_server() as redis, arq_workers(redis.url, 1, 200):
        say("polling: arq")
        baseline = _commands(redis, plan, _run_elsewhere)
    return [
        Line(
            f"Redis commands/s of an idle worker: nothing, {_RUNNING} messages running elsewhere",
            f"{ours[0]:.0f}, {ours[1]:.0f}",
            f"arq as it comes {baseline[0]:.0f}, {baseline[1]:,.0f}",
            "",
            "independent of what runs",
            ours[1] - ours[0] <= _ALIKE,
        )
    ]


def _commands(
    redis: RedisServer, plan: Plan, elsewhere: Callable[["redis_py.Redis"], None]
) -> list[float]:
    found = []
    with redis.client() as client:
        for running in (False, True):
            if running:
                elsewhere(client)
            time.sleep(plan.settle_seconds)
            client.config_resetstat()
            began = time.monotonic()
            time.sleep(plan.pick(6, 2))
            stats = client.info("commandstats")
            took = time.monotonic() - began
            calls = sum(
                stat["calls"]
                for name, stat in stats.items()
                if name not in ("cmdstat_config|resetstat", "cmdstat_info")
            )
            found.append(calls / took)
    return found


def _lease_elsewhere(client: "redis_py.Redis") -> None:
    """Leave what other workers' leases look like."""
    till = time.time() * 1000 + _LEASE_MS
    for _ in range(_RUNNING):
        message_id = new_message_id()
        client.zadd(keys.QUEUE, {message_id: till})
        client.hset(keys.OWNERS, message_id, "another")


def _run_elsewhere(client: "redis_py.Redis") -> None:
    """Leave what arq's running jobs look like."""
    since = time.time() * 1000
    for number in range(_RUNNING):
        client.zadd("arq:queue", {f"job{number}": since})
        client.psetex(f"arq:in-progress:job{number}", _LEASE_MS, b"1")

"""Row: how often a worker asks Redis to keep its leases, by the number of messages that it runs."""

import time
from typing import Final, cast

import redis as redis_py

from rejoin.shared import scripts
from tests.bench.child import Child
from tests.bench.plan import Plan, say
from tests.bench.posts import poster, until_running
from tests.bench.renewals import BEAT_SECONDS, LEASE_SECONDS, until_renewed
from tests.bench.table import Line
from tests.bench.targets import rejoin
from tests.support.redis_server import redis_server

_RUNNING: Final = (1, 100, 500)
_SILENT: Final = "openai/sim?words=1&rate=0.000001"  # a word in some days: only leases are kept
_MAX_JOBS: Final = 600
_ALIKE: Final = 0.1
_SLOWLOG_ENTRIES: Final = 1_000_000


def leases(plan: Plan) -> list[Line]:
    """Calls of the script that renews, as Redis counts them, in a third of a lease."""
    beats = plan.count(6, 2)
    found: list[float] = []
    with redis_server() as redis, Child("simulator") as simulator:
        settings = {
            "OPENAI_BASE_URL": f"http://127.0.0.1:{simulator.answer()['port']}/v1",
            "REJOIN_LEASE_SECONDS": f"{LEASE_SECONDS:g}",
            "REJOIN_MAX_JOBS": str(_MAX_JOBS),
            "REJOIN_TIMEOUT_FIRST_TOKEN": "600",
        }
        with (
            rejoin(redis, workers=1, settings=settings) as stack,
            poster(stack.api.port) as post,
            redis.client() as client,
        ):
            ids: list[str] = []
            for running in _RUNNING:
                say(f"leases: {running} messages")
                ids += [post(_SILENT) for _ in range(running - len(ids))]
                until_running(simulator, running)
                found.append(_renewals(client, ids[0], beats) / beats)
    told = ", ".join(f"{calls:.2f}" for calls in found)
    return [
        Line(
            "calls to Redis that keep one worker's leases, a third of a lease: "
            f"{', '.join(map(str, _RUNNING))} messages running",
            told,
            owed="1, whatever runs",
            met=all(abs(calls - 1) <= _ALIKE for calls in found),
        )
    ]


def _renewals(client: "redis_py.Redis", message_id: str, beats: int) -> int:
    """Renewals in so many beats, from the middle between two to the middle between two others.

    A worker's other scripts (its poll, the reaper) are EVALSHA too, so the command's count would
    not tell: the slow log does, in which every command is slow here.
    """
    client.config_set("slowlog-max-len", _SLOWLOG_ENTRIES)
    until_renewed(client, message_id)
    time.sleep(BEAT_SECONDS / 2)
    client.slowlog_reset()
    client.config_set("slowlog-log-slower-than", 0)
    time.sleep(BEAT_SECONDS * beats)
    client.config_set("slowlog-log-slower-than", -1)
    renewal = f"EVALSHA {scripts.digest('queue/renew')} ".encode()
    entries = cast(list[dict[str, bytes]], client.slowlog_get(_SLOWLOG_ENTRIES))
    return sum(entry["command"].startswith(renewal) for entry in entries)

"""Rows: how long a client hears nothing when its worker is killed, and when it is told to stop."""

import math
import time
from collections.abc import Callable, Mapping
from statistics import median
from typing import Final

from tests.bench.child import Child
from tests.bench.plan import Plan, say
from tests.bench.posts import poster, until_running
from tests.bench.renewals import BEAT_SECONDS, LEASE_SECONDS, until_renewed
from tests.bench.silence import listening
from tests.bench.table import Line
from tests.bench.targets import rejoin
from tests.support.processes import Worker
from tests.support.redis_server import redis_server

_MESSAGES: Final = 8
_STEADY: Final = "openai/sim?words=1000000&rate=50"
_WAIT_SECONDS: Final = 6 * LEASE_SECONDS
_OWED_KILLED: Final = LEASE_SECONDS + 1
_OWED_HANDED_OVER: Final = 1.0


def killed(plan: Plan) -> list[Line]:
    """kill -9, at moments spread over the time between two renewals of the leases."""
    kills = plan.count(8, 2)
    # A message survives so many kills only where more than the default's five may be lost.
    settings = {"REJOIN_LEASE_SECONDS": f"{LEASE_SECONDS:g}", "REJOIN_MAX_ATTEMPTS": "100"}
    found = _silences("kill", kills, settings, Worker.kill)
    return [
        Line(
            "one of two workers killed with -9 in mid-stream: silence seen by a client"
            f" ({_MESSAGES} messages, {kills} kills, lease {LEASE_SECONDS:g} s)",
            _told(found, 1, "s"),
            owed=f"≤ {_OWED_KILLED:g} s (the lease and 1 s)",
            met=max(found) <= _OWED_KILLED,
        )
    ]


def handover(plan: Plan) -> list[Line]:
    """SIGTERM, with answers that last longer than the worker's grace."""
    stops = plan.count(10, 3)
    settings = {"REJOIN_LEASE_SECONDS": f"{LEASE_SECONDS:g}", "REJOIN_DRAIN_SECONDS": "1"}
    found = _silences("hand-over", stops, settings, Worker.signal_stop)
    return [
        Line(
            "one of two workers stopped by SIGTERM, its grace used up: silence seen by a client"
            f" ({_MESSAGES} messages, {stops} hand-overs)",
            _told(found, 1000, "ms"),
            owed=f"≤ {_OWED_HANDED_OVER:g} s",
            met=max(found) <= _OWED_HANDED_OVER,
        )
    ]


def _silences(
    name: str, trials: int, settings: Mapping[str, str], end: Callable[[Worker], None]
) -> list[float]:
    """Each client's silence in seconds, in each trial: all messages go from worker to worker."""
    found: list[float] = []
    with redis_server() as redis, Child("simulator") as simulator:
        url = {"OPENAI_BASE_URL": f"http://127.0.0.1:{simulator.answer()['port']}/v1"}
        with (
            rejoin(redis, workers=1, settings=url | dict(settings)) as stack,
            poster(stack.api.port) as post,
            redis.client() as client,
        ):
            ids = [post(_STEADY) for _ in range(_MESSAGES)]
            until_running(simulator, _MESSAGES)
            stack.new_worker().start()
            with listening(stack.api.port, ids) as clients:
                for number in range(trials):
                    say(f"{name} {number + 1} of {trials}")
                    runs_all = stack.workers[number % 2]
                    until_renewed(client, ids[0])
                    time.sleep(BEAT_SECONDS * number / trials)
                    since = time.monotonic()
                    end(runs_all)
                    found += clients.silences(since, _WAIT_SECONDS)
                    if math.inf in found:
                        break
                    runs_all.wait()
                    runs_all.start()
    return found


def _told(silences: list[float], factor: int, unit: str) -> str:
    never = silences.count(math.inf)
    if never:
        return f"{never} of {len(silences)} streams did not go on"
    digits = 2 if factor == 1 else 0
    longest, middle = max(silences) * factor, median(silences) * factor
    return f"{longest:.{digits}f} {unit} at most, median {middle:.{digits}f} {unit}"

"""Row: what the quota adds to a model call: nothing known to bound its key, and a known limit."""

import asyncio
import time
from typing import Final

from rejoin.shared.connections import open_redis
from rejoin.shared.settings_file import Quota
from rejoin.worker.admission import Admission, Admitted
from tests.bench.plan import Plan, say
from tests.bench.samples import Spread, spread
from tests.bench.table import Line
from tests.support.redis_server import redis_server

_BOUNDED: Final = Quota(requests_per_minute=1_000_000, tokens_per_minute=10**9, requests_at_once=9)
_WARM: Final = 50
_OWED_MS: Final = 3.0


def admission(plan: Plan) -> list[Line]:
    """The median and p99 of one call's admission and its settling, a call at a time."""
    say("admission")
    with redis_server() as redis:
        free, bounded, ping = asyncio.run(_measure(redis.url, plan.count(2000, 200)))
    return [
        Line(
            "a call's admission and settling: no limit known; all kinds of limits: p50 / p99",
            f"{free}; {bounded}",
            f"one PING: {ping}",
            "",
            f"no limit: ≤ 0.1 ms, limits: p50 ≤ {_OWED_MS:g} ms",
            free.median_ms <= 0.1 and bounded.median_ms <= _OWED_MS,
        )
    ]


async def _measure(url: str, count: int) -> tuple[Spread, Spread, Spread]:
    redis = open_redis(url)
    try:
        unbounded = Admission(redis, {}, lease_seconds=5, environ={})
        bounded = Admission(redis, {"openai": _BOUNDED}, lease_seconds=5, environ={})
        found = [await _calls(one, count) for one in (unbounded, bounded)]
        pings = []
        for _ in range(count):
            began = time.perf_counter_ns()
            await redis.ping()
            pings.append(time.perf_counter_ns() - began)
    finally:
        await redis.aclose()
    return found[0], found[1], spread(pings)


async def _calls(admitting: Admission, count: int) -> Spread:
    took = []
    for number in range(_WARM + count):
        began = time.perf_counter_ns()
        call = await admitting.ask("openai/m", place=f"p{number}", caller="a", tokens=500)
        if not isinstance(call, Admitted):
            raise TypeError("there is room for all of them")
        await call.over(400)
        if number >= _WARM:
            took.append(time.perf_counter_ns() - began)
    return spread(took)

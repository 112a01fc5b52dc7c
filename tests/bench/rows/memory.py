"""Row: what an idle tail holds of the API process' memory."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Final

from tests.bench.child import Child
from tests.bench.machine import raise_file_limit, rss_bytes
from tests.bench.nchan import why_not
from tests.bench.plan import Plan, say
from tests.bench.table import Line
from tests.bench.targets import Target, nchan_target, open_streams, rejoin_target, xread_target
from tests.support.redis_server import RedisServer, redis_server

_WARM: Final = 50  # tails before the first look, so that nobody pays for what is loaded once
_SPARE_FILES: Final = 500
_OWED_KB: Final = 12


def memory(plan: Plan) -> list[Line]:
    """Idle tails, each on a message of its own, in one process."""
    most = min(plan.count(10_000, 1000), raise_file_limit() - _SPARE_FILES)
    few = most // 5
    ours = _measure("Rejoin", rejoin_target, [few, most - few], plan)
    baseline = _measure("XREAD", xread_target, [plan.count(1000, 300)], plan)
    peer = "nchan+Redis: " + (why_not() or "")
    if not why_not():
        peer = f"nchan+Redis {_measure('nchan', nchan_target, [few], plan)[0]:.1f} KB at {few:,}"
    return [
        Line(
            f"an idle tail: API's memory, the first {few:,}, all {most:,} in one process",
            f"{ours[0]:.1f}, {ours[1]:.1f} KB",
            f"XREAD a client {baseline[0]:.1f} KB at {plan.count(1000, 300):,}",
            peer,
            f"≤ {_OWED_KB} KB",
            ours[1] <= _OWED_KB,
        )
    ]


def _measure(
    name: str,
    enter: Callable[[RedisServer], AbstractContextManager[Target]],
    more: list[int],
    plan: Plan,
) -> list[float]:
    """KB a tail after so many more tails, each time over all of them."""
    with redis_server() as redis, enter(redis) as target, Child("reader") as reader:
        paths = target.source.prepare(_WARM + sum(more))
        open_streams(reader, target, paths[:_WARM])
        time.sleep(plan.settle_seconds)
        before, opened, found = rss_bytes(target.pid), 0, []
        for count in more:
            say(f"{name}: {count:,} more idle tails")
            open_streams(reader, target, paths[_WARM + opened :][:count])
            opened += count
            time.sleep(plan.settle_seconds)
            found.append((rss_bytes(target.pid) - before) / opened / 1024)
        return found

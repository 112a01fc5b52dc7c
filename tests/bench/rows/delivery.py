"""Rows: what an event delivered costs the API process, and how long it takes to the socket.

All servers run side by side and are measured in turn, slice by slice, so that whatever else the
machine does meets all of them alike.
"""

import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from statistics import median
from typing import Final

from tests.bench.bare_send import bare_send
from tests.bench.child import Child
from tests.bench.machine import cpu_seconds
from tests.bench.nchan import why_not
from tests.bench.plan import Plan, say
from tests.bench.samples import Spread
from tests.bench.table import Line
from tests.bench.targets import Target, nchan_target, open_streams, rejoin_target, xread_target
from tests.support.redis_server import redis_server

_CATCH_UP_SECONDS: Final = 15.0
_LATE_SECONDS: Final = 0.5  # a publisher that needs longer than it should is being held back

REJOIN: Final = "Rejoin"
XREAD: Final = "XREAD a client"
NCHAN: Final = "nchan+Redis"


@dataclass(frozen=True, slots=True)
class Shape:
    """How many messages, tails on each, events a second on each; every n-th tells its time."""

    messages: int
    tails: int
    per_second: float
    mark_every: int

    @property
    def deliveries_per_second(self) -> float:
        """How many frames reach a socket each second."""
        return self.messages * self.tails * self.per_second


@dataclass(slots=True)
class Measured:
    """What the slices of one server came to."""

    costs_us: list[float] = field(default_factory=list)
    medians_ms: list[float] = field(default_factory=list)
    p99s_ms: list[float] = field(default_factory=list)
    missing: int = 0
    held_back: bool = False

    @property
    def cost_us(self) -> float:
        """CPU of the server's process for each event delivered."""
        return median(self.costs_us)

    @property
    def p99_ms(self) -> float:
        """From the append to the socket's reader."""
        return median(self.p99s_ms)

    def __str__(self) -> str:
        latency = Spread(0, median(self.medians_ms), self.p99_ms)
        lost = f", {self.missing:,} MISSING" if self.missing else ""
        behind = ", fell behind" if self.held_back else ""
        return f"{self.cost_us:.1f} µs, {latency}{lost}{behind}"


COMMON: Final = Shape(1000, 1, 4, 10)
FAN_OUT: Final = Shape(10, 100, 10, 1)
OVERLOAD: Final = Shape(10, 100, 200, 20)


def common(plan: Plan) -> list[Line]:
    """The common shape: each tail has a message of its own."""
    found, floor_us = _side_by_side(COMMON, plan, bare_at_once=4)
    ratio = _ratio(found, NCHAN)
    return [
        _line(
            "an event delivered: API's CPU, latency p50 / p99; 1,000 tails on 1,000 messages,"
            " 4,000 events/s",
            found,
            floor_us,
            "≤ 0.7 x nchan",
            None if ratio is None else ratio <= 0.7,
        )
    ]


def fan_out(plan: Plan) -> list[Line]:
    """Many tails on a few messages."""
    found, floor_us = _side_by_side(FAN_OUT, plan, bare_at_once=100)
    ours, ratio = found[REJOIN], _ratio(found, NCHAN)
    cheap = ours.cost_us <= 1.5 * floor_us and (ratio is None or ratio <= 1.1)
    return [
        _line(
            "the same, 100 tails on each of 10 messages, 10,000 events/s",
            found,
            floor_us,
            "≤ 1.5 x bare send, ≤ 1.1 x nchan, p99 ≤ 5 ms",
            cheap and ours.p99_ms <= 5,
        )
    ]


def overload(plan: Plan) -> list[Line]:
    """More than can be sent one by one."""
    found, floor_us = _side_by_side(OVERLOAD, plan, bare_at_once=100)
    ours = found[REJOIN]
    kept_up = not ours.missing and not ours.held_back and ours.p99_ms <= 250
    return [
        _line(
            "the same, overload: 100 tails on each of 10 messages, 200,000 events/s",
            found,
            floor_us,
            "nothing dropped, p99 ≤ 250 ms, ≤ 5 µs",
            kept_up and ours.cost_us <= 5,
        )
    ]


def _line(
    what: str, found: dict[str, Measured], floor_us: float, owed: str, met: bool | None
) -> Line:
    ratio = _ratio(found, NCHAN)
    times = f"{found[REJOIN].cost_us / floor_us:.2f} x a bare send of {floor_us:.1f} µs"
    if ratio is not None:
        times += f", {ratio:.2f} x nchan"
    peer = f"{NCHAN} {found[NCHAN]}" if NCHAN in found else f"{NCHAN}: {why_not()}"
    return Line(what, f"{found[REJOIN]} ({times})", f"{XREAD} {found[XREAD]}", peer, owed, met)


def _side_by_side(
    shape: Shape, plan: Plan, *, bare_at_once: int
) -> tuple[dict[str, Measured], float]:
    """Measure the servers and the bare send in turn."""
    opened = {REJOIN: rejoin_target, XREAD: xread_target, NCHAN: nchan_target}
    slices, seconds = plan.count(4, 1), plan.pick(3, 1)
    floors = []
    with ExitStack() as stack:
        redis = stack.enter_context(redis_server())
        floor = stack.enter_context(bare_send())
        running: dict[str, tuple[Target, Child]] = {}
        for name, enter in opened.items():
            if name == NCHAN and why_not():
                continue
            target = stack.enter_context(enter(redis))
            reader = stack.enter_context(Child("reader"))
            paths = target.source.prepare(shape.messages)
            open_streams(reader, target, [path for path in paths for _ in range(shape.tails)])
            running[name] = target, reader
        time.sleep(plan.settle_seconds)
        found = {name: Measured() for name in running}
        for number in range(slices):
            for name, (target, reader) in running.items():
                say(f"{shape.deliveries_per_second:,.0f} events/s, slice {number + 1}: {name}")
                _slice(target, reader, shape, seconds, found[name])
            # In rounds of 1 ms, as the publisher appends, or of a message's tails.
            rate = max(4_000, min(10_000, 100 * bare_at_once))
            floors.append(floor.cost_us(at_once=bare_at_once, per_second=rate, seconds=seconds / 2))
    return found, median(floors)


def _slice(target: Target, reader: Child, shape: Shape, seconds: float, measured: Measured) -> None:
    reader.ask("reset")
    before = cpu_seconds(target.pid)
    published = target.source.publish(shape.per_second, seconds, shape.mark_every)
    wanted = int(str(published["published"])) * shape.tails
    end = time.monotonic() + _CATCH_UP_SECONDS
    while True:
        report = reader.ask("report")
        missing = wanted - int(str(report["frames"]))
        if missing <= 0 or time.monotonic() > end:
            break
        time.sleep(0.02)
    spent = cpu_seconds(target.pid) - before
    latency = Spread(*report["latency"])  # type: ignore[misc]
    measured.costs_us.append(spent / (wanted - missing) * 1e6)
    measured.medians_ms.append(latency.median_ms)
    measured.p99s_ms.append(latency.p99_ms)
    measured.missing += abs(missing)
    measured.held_back |= float(str(published["seconds"])) > seconds + _LATE_SECONDS


def _ratio(found: dict[str, Measured], name: str) -> float | None:
    return found[REJOIN].cost_us / found[name].cost_us if name in found else None

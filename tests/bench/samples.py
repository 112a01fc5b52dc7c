"""Latencies: taken from the nanoseconds that a text carries, told as a median and a p99."""

import time
from collections.abc import Sequence
from typing import Final, NamedTuple

MARK: Final = b'"@'  # a text that begins with @ carries the time at which it was made
DIGITS: Final = 16


def stamp() -> str:
    """The monotonic clock, which all processes of a machine share, as a marked text begins."""
    return f"@{time.monotonic_ns():0{DIGITS}d} "


class Spread(NamedTuple):
    """A median and a p99, both in milliseconds, of `count` samples."""

    count: int  # type: ignore[assignment]
    median_ms: float
    p99_ms: float

    def __str__(self) -> str:
        return f"{_ms(self.median_ms)} / {_ms(self.p99_ms)} ms"


def spread(nanoseconds: Sequence[int]) -> Spread:
    """The spread of some latencies; NaN where there are none."""
    if not nanoseconds:
        return Spread(0, float("nan"), float("nan"))
    ordered = sorted(nanoseconds)
    last = len(ordered) - 1
    return Spread(
        len(ordered), ordered[last // 2] / 1e6, ordered[min(last, round(last * 0.99))] / 1e6
    )


def _ms(value: float) -> str:
    return f"{value:.1f}" if value < 100 else f"{value:,.0f}"

"""Times as clients read them."""

import time
from datetime import UTC, datetime


def now_ms() -> int:
    """This machine's clock, in ms since the epoch."""
    return time.time_ns() // 1_000_000


def iso(ms: int) -> str:
    """A time as RFC 3339 in UTC, to the millisecond: `2026-11-21T09:30:00.125Z`."""
    at = datetime.fromtimestamp(ms / 1000, UTC)
    return f"{at:%Y-%m-%dT%H:%M:%S}.{ms % 1000:03d}Z"

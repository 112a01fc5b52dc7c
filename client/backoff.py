"""How long to wait before the next try, and until when to try at all."""

import random
import time
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

FIRST_SECONDS: Final = 0.25
MOST_SECONDS: Final = 8.0


class Backoff:
    """Waits that double from 0.25 to 8 seconds, each cut by chance to between half and all of it.

    The chance is there so that a thousand clients of one server do not come back together.
    """

    def __init__(
        self,
        *,
        first_seconds: float = FIRST_SECONDS,
        most_seconds: float = MOST_SECONDS,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._first_seconds = first_seconds
        self._most_seconds = most_seconds
        self._chance = chance
        self._failures = 0

    def next(self, at_least_seconds: float = 0) -> float:
        """Return the seconds to wait after one more failure; what the server asked for wins."""
        # 30 doublings are far beyond any bound; without the limit the float overflows one day.
        doubled = self._first_seconds * 2.0 ** min(self._failures, 30)
        self._failures += 1
        whole = min(doubled, self._most_seconds)
        spread = whole * (0.5 + self._chance() / 2)
        # Added to, not replaced by: a `Retry-After: 1` sent to everybody is no reason to come
        # back in the same instant.
        return spread if spread > at_least_seconds else at_least_seconds + spread / 4

    def reset(self) -> None:
        """Forget the failures: something came through."""
        self._failures = 0


class Patience:
    """How long to go on without a sign of the server; None: for ever."""

    def __init__(self, seconds: float | None) -> None:
        self.seconds = seconds
        self._since = time.monotonic()

    def renew(self) -> None:
        """Begin again: the server gave a sign."""
        self._since = time.monotonic()

    def allows(self, wait_seconds: float) -> bool:
        """Whether a try after `wait_seconds` more still lies within it."""
        if self.seconds is None:
            return True
        return time.monotonic() - self._since + wait_seconds <= self.seconds


def parse_retry_after(value: str | None) -> float | None:
    """Return a Retry-After header's seconds from now (RFC 9110, 10.2.3), None for rubbish."""
    if value is None:
        return None
    if value.isascii() and value.isdigit():
        return float(value[:9])
    try:
        when = parsedate_to_datetime(value)
    except ValueError:
        return None
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    return max(0.0, (when - datetime.now(UTC)).total_seconds())

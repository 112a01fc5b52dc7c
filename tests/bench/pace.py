"""Which events are due: all messages in turn, evenly spread over the time."""

import time
from typing import Final

ROUND_SECONDS: Final = 0.001  # what became due meanwhile goes out together, as a worker's does


class Pace:
    """Events numbered from 0; number `n` belongs to message `n % messages`."""

    def __init__(self, per_second: float, seconds: float) -> None:
        self.count = round(per_second * seconds)
        self._per_second = per_second
        self._next = 0
        self._began = time.monotonic()
        self.most_late_seconds = 0.0

    @property
    def over(self) -> bool:
        """Whether all were handed out."""
        return self._next >= self.count

    def due(self) -> range:
        """The numbers that became due since the last call."""
        first = self._next
        past = time.monotonic() - self._began
        self._next = min(self.count, int(past * self._per_second) + 1)
        if self._next > first:
            self.most_late_seconds = max(self.most_late_seconds, past - first / self._per_second)
        return range(first, self._next)

    @property
    def took_seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self._began

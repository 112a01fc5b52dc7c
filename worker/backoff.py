"""How long to wait before a provider is asked again."""

import random
from typing import Final

FIRST_SECONDS: Final = 0.5
MOST_SECONDS: Final = 8.0


def pause_seconds(failures: int, retry_after_seconds: float | None) -> float:
    """Seconds to the next try after `failures` (from 1): 0.5 doubling to 8, with jitter.

    The provider's Retry-After wins (RFC 9110, 10.2.3); a little is added to it, so that those
    whom it was told to together do not come together.
    """
    if retry_after_seconds is not None:
        return retry_after_seconds + random.uniform(0, 0.25)  # noqa: S311  spreads, hides nothing
    longest = min(MOST_SECONDS, FIRST_SECONDS * 2.0 ** (failures - 1))
    return longest * random.uniform(0.5, 1)  # noqa: S311  spreads, hides nothing

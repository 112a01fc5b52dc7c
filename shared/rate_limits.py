"""What a provider says of the limits of its key, in its answers' headers."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limit:
    """One limit; None: the provider does not say.

    `most` a minute, `left` of them at this moment, all there again in `reset_seconds`.
    """

    most: int | None = None
    left: int | None = None
    reset_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class RateLimits:
    """What the headers of one answer say."""

    requests: Limit = Limit()
    tokens: Limit = Limit()

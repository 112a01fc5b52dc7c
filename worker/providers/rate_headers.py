"""What a provider's headers say of its key's limits: OpenAI's, Anthropic's, OpenRouter's.

OpenAI's `x-ratelimit-remaining-requests` and the like, with a reset such as "6m0s"; Anthropic's
`anthropic-ratelimit-requests-remaining`, with a time; OpenRouter's `X-RateLimit-Remaining`, with
milliseconds since the epoch. What cannot be read is not said.
"""

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from rejoin.shared.rate_limits import Limit, RateLimits

_PARTS: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|d|h|m|s)")
_DURATION: Final = re.compile(rf"(?:{_PARTS.pattern})+")
_SECONDS: Final[Mapping[str, float]] = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
_MOST_DIGITS: Final = 15
_MOST_RESET_SECONDS: Final = 366 * 86_400.0
_EPOCH_MS_FROM: Final = 1e11  # a smaller number is seconds: since the epoch, or to go
_EPOCH_FROM: Final = 1e9
_NOTHING: Final = Limit()


def rate_limits(headers: Mapping[str, str]) -> RateLimits | None:
    """Return what an answer's headers say; None: nothing. `headers` do not mind upper case."""
    limits = RateLimits(_requests(headers), _tokens(headers))
    return None if limits == RateLimits() else limits


def _requests(headers: Mapping[str, str]) -> Limit:
    for form in _FORMS:
        if (limit := _limit(headers, form.format(what="requests"))) != _NOTHING:
            return limit
    return _limit(headers, "x-ratelimit-{part}")


def _tokens(headers: Mapping[str, str]) -> Limit:
    for form in _FORMS:
        if (limit := _limit(headers, form.format(what="tokens"))) != _NOTHING:
            return limit
    # Where Anthropic has no limit on the sum: the one that is nearer.
    parts = [_limit(headers, form) for form in _ANTHROPICS_PARTS]
    told = [part for part in parts if part != _NOTHING]
    return min(
        told, key=lambda part: math.inf if part.left is None else part.left, default=_NOTHING
    )


_FORMS: Final = ("x-ratelimit-{{part}}-{what}", "anthropic-ratelimit-{what}-{{part}}")
_ANTHROPICS_PARTS: Final = (
    "anthropic-ratelimit-input-tokens-{part}",
    "anthropic-ratelimit-output-tokens-{part}",
)


def _limit(headers: Mapping[str, str], form: str) -> Limit:
    most, left, reset = (
        headers.get(form.format(part=part), "").strip() for part in ("limit", "remaining", "reset")
    )
    if not most and not left:
        return _NOTHING
    # A limit of 0 is no limit that a call could keep to, but an answer to an account without any.
    return Limit(_count(most) or None, _count(left), _reset(reset))


def _count(text: str) -> int | None:
    whole = text.partition(".")[0]
    return (
        int(whole) if whole.isascii() and whole.isdigit() and len(whole) <= _MOST_DIGITS else None
    )


def _reset(text: str) -> float | None:
    """Seconds from now, from a duration, a number or a time (RFC 3339): from 0 to a year."""
    seconds = _seconds(text)
    return None if seconds is None else min(max(0.0, seconds), _MOST_RESET_SECONDS)


def _seconds(text: str) -> float | None:
    if _DURATION.fullmatch(text):
        return sum(float(number) * _SECONDS[unit] for number, unit in _PARTS.findall(text))
    try:
        number = float(text)
    except ValueError:
        return _until(text)
    if not math.isfinite(number):
        return None
    if number >= _EPOCH_FROM:
        number = number / 1000 if number >= _EPOCH_MS_FROM else number
        number -= datetime.now(UTC).timestamp()
    return number


def _until(text: str) -> float | None:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    aware = time if time.tzinfo else time.replace(tzinfo=UTC)
    return (aware - datetime.now(UTC)).total_seconds()

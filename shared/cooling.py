"""Models that failed and are left alone for a while by all workers; then one message tries each.

A model is left alone from when it failed, for longer each time it fails again. After that it is on
trial: one message of all asks it, until its call is over or a bounded time is. Times are Redis'
own, in ms.
"""

from collections.abc import Awaitable, Mapping, Sequence
from typing import Final, NamedTuple, cast

from redis.asyncio import Redis

from rejoin.shared import keys, scripts
from rejoin.shared.connections import redis_or_away

FIRST_MS: Final = 30_000
MOST_MS: Final = 300_000
TRIAL_MS: Final = 30_000
FORGET_MS: Final = 300_000  # one that nobody asked for so long begins at FIRST_MS again
MOST_RETRY_AFTER_MS: Final = 3_600_000  # it is tried once an hour, whatever it asked for
MOST_MODELS: Final = 200  # names that no provider has fail too, and callers send them


class Waits(NamedTuple):
    """How long a model is left alone: at first, at most, and how long a trial is its message's."""

    first_ms: int = FIRST_MS
    most_ms: int = MOST_MS
    trial_ms: int = TRIAL_MS


USUAL: Final = Waits()


class Cooling(NamedTuple):
    """A model that is left alone until `until_ms`, for the `reason` it failed with last."""

    until_ms: int
    reason: str


class Chosen(NamedTuple):
    """The place of the model to ask; None: all of them are left alone.

    `on_trial`: it failed, and this message alone asks it. `known` has those that failed.
    """

    place: int | None
    on_trial: bool
    known: Mapping[str, Cooling]


async def choose(
    redis: Redis, message_id: str, models: Sequence[str], *, waits: Waits = USUAL
) -> Chosen:
    """Return the first of the models that a message may ask now.

    Raises:
        LogUnavailable: Redis is away; a repeat is safe.
    """
    arguments: list[str | int] = [message_id, waits.trial_ms, FORGET_MS, *models]
    with redis_or_away():
        reply = await scripts.run(redis, "cooling/choose", [keys.COOLING], arguments)
    place, on_trial, *told = cast(list[int | bytes], reply)
    pairs = zip(models, told[::2], told[1::2], strict=True)
    known = {model: Cooling(int(until), cast(bytes, why).decode()) for model, until, why in pairs}
    failed = {model: cooling for model, cooling in known.items() if cooling.reason}
    return Chosen(int(place) - 1 if int(place) else None, bool(int(on_trial)), failed)


async def fail(
    redis: Redis, model: str, reason: str, *, retry_after_ms: int = 0, waits: Waits = USUAL
) -> int:
    """Leave a model alone that failed for `reason`; return until when.

    Raises:
        LogUnavailable: Redis is away; a repeat is safe.
    """
    asked_ms = min(max(0, retry_after_ms), MOST_RETRY_AFTER_MS)
    wait = [asked_ms, waits.first_ms, waits.most_ms, FORGET_MS, MOST_MODELS]
    with redis_or_away():
        until = await scripts.run(redis, "cooling/fail", [keys.COOLING], [model, reason, *wait])
    return int(cast(bytes, until))


async def clear(redis: Redis, model: str, until_ms: int) -> None:
    """Leave a model alone no longer, unless it failed after the failure of `until_ms`.

    Raises:
        LogUnavailable: Redis is away; a repeat is safe.
    """
    with redis_or_away():
        await scripts.run(redis, "cooling/clear", [keys.COOLING], [model, until_ms])


async def left_alone(redis: Redis) -> dict[str, Cooling]:
    """Return the models that are left alone now, also those that one message has on trial.

    Raises:
        LogUnavailable: Redis is away.
    """
    with redis_or_away():
        found = await cast(Awaitable[dict[bytes, bytes]], redis.hgetall(keys.COOLING))
        if not found:
            return {}
        seconds, micros = cast(tuple[int, int], await redis.time())
    now_ms = seconds * 1000 + micros // 1000
    cooling = {}
    for model, told in found.items():
        try:
            until, _, trial_until, _, reason = told.decode().split(" ")
            until_ms = max(int(until), int(trial_until))
        except ValueError:
            continue  # of another version
        if until_ms > now_ms:
            cooling[model.decode()] = Cooling(until_ms, reason)
    return cooling

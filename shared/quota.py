"""One quota for all workers: what a provider's key may be asked in a window, and at once.

A scope has a line: who cannot be admitted keeps its place there, the callers by turns and one
caller's in their order. Everything goes by Redis' clock, and expires.
"""

from collections.abc import Awaitable, Sequence
from typing import Final, NamedTuple, cast

from redis.asyncio import Redis

from rejoin.shared import keys, scripts
from rejoin.shared.connections import redis_or_away
from rejoin.shared.quota_scope import UNBOUNDED, Bounds, Scope
from rejoin.shared.rate_limits import Limit, RateLimits
from rejoin.shared.scripts import Argument, Call

MOST_PARKED_SECONDS: Final = 3600.0  # what asks for more is asked again then

_LIFE_SECONDS: Final = 7200  # twice the longest parking
_BELIEVED_MS: Final = 5000  # a place whose call does not come when it is due is passed over then
_AT_ONCE: Final = 100  # places named by one look
_GOES_AHEAD_MS: Final = 1000  # the first call that a parking does not hold up, before the others
_SLOWEST_LOOK_MS: Final = 30_000  # by one that waits for hours, where nobody wakes it
_SCOPE: Final = b"scope "
_ALL_KEPT: Final = -1
_NOT_MADE: Final = -2
_ADMITTED: Final = 1
_WAITS_WITHOUT_PARKING: Final = 2

_NOTHING_SAID: Final = RateLimits()


class Admitted(NamedTuple):
    """Whether a call may begin; else in how many ms it is its turn, and at what time that is."""

    admitted: bool
    wait_ms: int = 0
    due_ms: int = 0


class Place(NamedTuple):
    """A place in a line whose call may begin now. `parked`: its message holds no worker."""

    name: str
    parked: bool


class Standing(NamedTuple):
    """How a scope stands: whether anything bounds it, for how long its key is parked.

    `ramps`: after that they come back one by one, as answers come. `following` are the places
    whose calls may begin now, a parked one named once.
    """

    bounded: bool
    parked_ms: int
    ramps: bool
    following: Sequence[Place] = ()


class Seen(NamedTuple):
    """One scope of a key, for people to read; a bound that is None is none."""

    name: str
    requests: int | None
    tokens: int | None
    at_once: int | None
    waiting: int


async def admit(
    redis: Redis,
    scope: Scope,
    place: str,
    call: str,
    *,
    caller: str,
    tokens: int,
    slot_ms: int,
    patience_ms: int,
    had_turn: bool = False,
    goes_on_with: str = "",
) -> tuple[Admitted, Standing]:
    """Let a call begin, or keep `place` for it in the line.

    `tokens` are kept for it. Its slot lives `slot_ms`, unless it is kept. One that has to wait
    for longer than `patience_ms` is taken to be parked: `following` names it when it may begin.
    `had_turn`: it is no first call, so it comes before those that have not begun.
    `goes_on_with` is the model of a call that is made because another one was refused: a parking of
    the key does not hold it up, as long as that model was not refused during it too.

    Raises:
        LogUnavailable: Redis is away; a repeat is safe.
    """
    names = keys.quota(scope.key, scope.name)
    _, state, window, _, _, _, line, places, turns = names
    window_ms, life_ms = scope.window_ms, _LIFE_SECONDS * 1000
    placing: list[Argument] = [place, call, caller, tokens, _BELIEVED_MS, life_ms, int(had_turn)]
    asking: list[Argument] = [
        place,
        call,
        slot_ms,
        window_ms,
        goes_on_with,
        _GOES_AHEAD_MS,
        life_ms,
    ]
    with redis_or_away():
        refreshed, _, admitted = await scripts.run_all(
            redis,
            [
                _refreshing(scope),
                Call("quota/place", [state, window, line, places, turns], placing),
                Call("quota/admit", names, asking),
            ],
            undivided=True,
        )
    stands = _standing(refreshed)
    if admitted == _ADMITTED:
        return Admitted(admitted=True), stands
    passes = int(admitted == _WAITS_WITHOUT_PARKING)
    waiting: list[Argument] = [
        place, window_ms, patience_ms, _BELIEVED_MS, passes, _SLOWEST_LOOK_MS,
    ]  # fmt: skip
    with redis_or_away():
        reply = await scripts.run(redis, "quota/turn", names[:8], waiting)
    wait_ms, due_ms = cast(tuple[int, bytes], reply)
    return Admitted(admitted=False, wait_ms=wait_ms, due_ms=int(due_ms)), stands


async def heard(
    redis: Redis,
    scope: Scope,
    call: str,
    said: RateLimits | None = None,
    *,
    model: str = "",
    refused: bool = False,
    parked_seconds: float = 0,
) -> None:
    """Note that a call of `model` was answered, and what the answer said of the limits.

    `refused`: for its rate; the key is parked then for so many seconds, for every worker.

    Raises:
        LogUnavailable: Redis is away; a repeat is safe.
    """
    limits = said or _NOTHING_SAID
    park_ms = round(min(parked_seconds, MOST_PARKED_SECONDS) * 1000)
    arguments: list[str | int] = [call, scope.window_ms, int(refused), park_ms]
    for limit in (limits.requests, limits.tokens):
        arguments += _told(limit)
    names = keys.quota(scope.key, scope.name)[:6]
    calls = [
        Call("quota/learn", names, arguments),
        Call("quota/park", names[:1], [model, int(refused), park_ms]),
        _refreshing(scope),
    ]
    with redis_or_away():
        await scripts.run_all(redis, calls, undivided=True)  # `refresh` lets what is new expire


async def settle(
    redis: Redis, scope: Scope, call: str, *, tokens: int | None, made: bool, took_seconds: float
) -> Standing:
    """Note that a call is over; `tokens` it used (None: nobody knows), or that it was never made.

    Raises:
        LogUnavailable: Redis is away; a repeat is safe.
    """
    used = (_ALL_KEPT if tokens is None else tokens) if made else _NOT_MADE
    names = keys.quota(scope.key, scope.name)[:6]
    took_ms = round(took_seconds * 1000)
    return await _stands(redis, scope, [Call("quota/settle", names, [call, used, took_ms])])


async def keep(redis: Redis, scope: Scope, calls: Sequence[str], *, slot_ms: int) -> Standing:
    """Let the slots of these calls live on, and look how the scope stands.

    Raises:
        LogUnavailable: Redis is away; a repeat is safe.
    """
    running = keys.quota(scope.key, scope.name)[4]
    keeping = [Call("quota/keep", [running], [slot_ms, *calls])] if calls else []
    return await _stands(redis, scope, keeping)


async def leave(redis: Redis, line: str, place: str) -> None:
    """Give a place in a line up: its message has ended, or was stopped.

    Raises:
        LogUnavailable: Redis is away; a repeat is safe.
    """
    key, _, name = line.partition(" ")
    _, _, _, _, _, _, waiting, places, _ = keys.quota(key, name)
    with redis_or_away():
        pipeline = redis.pipeline(transaction=False)
        pipeline.zrem(waiting, place)
        pipeline.hdel(places, place)
        await pipeline.execute()


async def look(redis: Redis, key: str, bounds: Bounds) -> tuple[float, list[Seen]]:
    """Return for how many seconds the key is parked, and its scopes that anything bounds.

    Raises:
        LogUnavailable: Redis is away.
    """
    with redis_or_away():
        own = await cast(Awaitable[dict[bytes, bytes]], redis.hgetall(keys.quota(key, "")[0]))
    names = sorted(name.removeprefix(_SCOPE).decode() for name in own if name.startswith(_SCOPE))
    seen, parked_ms = list[Seen](), 0
    for name in names:
        scope = Scope(key, name, UNBOUNDED if name else bounds)
        with redis_or_away():
            (refreshed,) = await scripts.run_all(redis, [_refreshing(scope)])
            state, line = keys.quota(key, name)[1], keys.quota(key, name)[6]
            fields = ("requests_bound", "tokens_bound", "calls_bound")
            found = await cast(Awaitable[list[bytes | None]], redis.hmget(state, list(fields)))
            waiting = await redis.zcard(line)
        stands = _standing(refreshed)
        parked_ms = stands.parked_ms
        requests, tokens, at_once = (int(value or 0) or None for value in found)
        if stands.bounded:
            seen.append(Seen(name, requests, tokens, at_once, waiting))
    return parked_ms / 1000, seen


async def _stands(redis: Redis, scope: Scope, first: Sequence[Call]) -> Standing:
    following = Call("quota/next", keys.quota(scope.key, scope.name), [_AT_ONCE, _BELIEVED_MS])
    with redis_or_away():
        calls = [*first, _refreshing(scope), following]
        *_, refreshed, named = await scripts.run_all(redis, calls, undivided=True)
    told = [place.decode() for place in cast(Sequence[bytes], named)]
    places = [Place(place[1:], place[0] == "p") for place in told]
    return _standing(refreshed, places)


def _standing(refreshed: object, following: Sequence[Place] = ()) -> Standing:
    bounded, parked_ms, ramps = cast(tuple[int, int, int], refreshed)
    return Standing(bool(bounded), parked_ms, bool(ramps), following)


def _refreshing(scope: Scope) -> Call:
    said: list[Argument] = [scope.name, scope.window_ms, *scope.bounds, _LIFE_SECONDS * 1000]
    return Call("quota/refresh", keys.quota(scope.key, scope.name), said)


def _told(limit: Limit) -> list[str | int]:
    reset_ms = None if limit.reset_seconds is None else round(limit.reset_seconds * 1000)
    return ["" if value is None else value for value in (limit.most, limit.left, reset_ms)]

"""A scope of a provider key's quota in a test: admits, and lets time pass for it."""

from typing import Final, cast

from redis.asyncio import Redis

from rejoin.shared import keys, quota
from rejoin.shared.quota import Admitted
from rejoin.shared.quota_scope import Bounds, Scope

WINDOW: Final = 60.0
PATIENCE_MS: Final = 2000
SLOT_MS: Final = 5000


def scope_of(
    requests: int = 0, tokens: int = 0, at_once: int = 0, *, name: str = "", key: str = "test:1"
) -> Scope:
    """A scope with these bounds."""
    return Scope(key, name, Bounds(requests, tokens, at_once), WINDOW)


async def admit(
    redis: Redis,
    scope: Scope,
    place: str,
    *,
    caller: str = "",
    tokens: int = 10,
    patience_ms: int = PATIENCE_MS,
    had_turn: bool = False,
) -> Admitted:
    """Ask for one call, which has the name of its place."""
    admitted, _ = await quota.admit(
        redis,
        scope,
        place,
        place,
        caller=caller,
        tokens=tokens,
        slot_ms=SLOT_MS,
        patience_ms=patience_ms,
        had_turn=had_turn,
    )
    return admitted


async def fill(redis: Redis, scope: Scope, count: int, **more: int) -> None:
    """Let so many calls begin."""
    for number in range(count):
        assert (await admit(redis, scope, f"first-{number}", **more)).admitted  # type: ignore[arg-type]


async def pass_time(redis: Redis, scope: Scope, seconds: float) -> None:
    """Make all that the scope knows so much older."""
    own, state, window, _, running, unheard, _, places, _ = keys.quota(scope.key, scope.name)
    by_ms = round(seconds * 1000)
    for name in (window, running, unheard):
        for member in await redis.zrange(name, 0, -1):
            await redis.zincrby(name, -by_ms, member)
    for name, fields in ((state, _TIMES), (own, ("parked_from",))):
        for field in fields:
            if await redis.hexists(name, field):  # type: ignore[misc]
                await redis.hincrby(name, field, -by_ms)  # type: ignore[misc]
    stored = cast(dict[bytes, bytes], await redis.hgetall(places))  # type: ignore[misc]
    for place, said in stored.items():
        till, need, kind, *times = said.split()
        woken, since = (max(0, int(time) - by_ms) for time in times)
        older = b"%d %b %b %d %d" % (int(till) - by_ms, need, kind, woken, since)
        await redis.hset(places, mapping={place: older})  # type: ignore[misc]


_TIMES: Final = ("learned_at", "requests_till", "tokens_till")

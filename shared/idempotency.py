"""What an owner's Idempotency-Keys were used for: one message each, for 24 hours."""

import hashlib
from typing import Final, NamedTuple, cast

from redis.asyncio import Redis

from rejoin.shared import keys, scripts
from rejoin.shared.connections import redis_or_away

_LIFE_MS: Final = 24 * 3600 * 1000


class Use(NamedTuple):
    """What a key is used for: a message, its conversation, the digest of the body it came with."""

    message_id: str
    conversation_id: str
    digest: str


class Reserved(NamedTuple):
    """A key as it stands: its use, how old that is, and whether the message is known accepted.

    `waiting_for` is what its first answer said of it, as `confirm` was told.
    """

    use: Use
    age_ms: int
    accepted: bool
    waiting_for: str


def key_name(owner: str, idempotency_key: str) -> str:
    """The Redis key of a caller's key, which may hold anything."""
    return keys.idempotency(owner, hashlib.sha256(idempotency_key.encode()).hexdigest())


async def reserve(redis: Redis, name: str, use: Use, *, instead_of: str = "") -> Reserved:
    """Reserve the key for `use` and return who holds it then: the first who came.

    `instead_of` is the holder whose place is taken if it was never accepted. May be repeated.

    Raises:
        LogUnavailable: Redis is away; a repeat is safe.
    """
    with redis_or_away():
        reply = await scripts.run(redis, "owner/reserve", [name], [*use, _LIFE_MS, instead_of])
    return _parse(cast(list[bytes | int], reply))


async def find(redis: Redis, name: str) -> Reserved | None:
    """Return who holds the key, or None; nothing is written.

    Raises:
        LogUnavailable: Redis is away.
    """
    with redis_or_away():
        reply = await scripts.run(redis, "owner/reserve", [name], ["", "", "", _LIFE_MS, ""])
    return _parse(cast(list[bytes | int], reply)) if reply else None


async def confirm(redis: Redis, name: str, use: Use, *, waiting_for: str = "") -> bool:
    """Note that the key's message is accepted; False where the key is another message's.

    `waiting_for` is kept for later answers, the first time.

    Raises:
        LogUnavailable: Redis is away; a repeat is safe.
    """
    with redis_or_away():
        return bool(
            await scripts.run(redis, "owner/confirm", [name], [*use, _LIFE_MS, waiting_for])
        )


async def forget(redis: Redis, name: str, message_id: str) -> bool:
    """Let the key go, if it is this message's and that was never accepted.

    Raises:
        LogUnavailable: Redis is away; a repeat is safe.
    """
    with redis_or_away():
        return bool(await scripts.run(redis, "owner/forget", [name], [message_id]))


def _parse(reply: list[bytes | int]) -> Reserved:
    message_id, conversation_id, digest = (cast(bytes, part).decode() for part in reply[:3])
    age_ms, accepted = cast(list[int], reply[3:5])
    use = Use(message_id, conversation_id, digest)
    return Reserved(use, age_ms, bool(accepted), cast(bytes, reply[5]).decode())

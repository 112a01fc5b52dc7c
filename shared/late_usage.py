"""What a worker used of a message that it lost, told once it can: it stood still, or Redis did.

The log takes nothing more of its attempt, and what it had not written is in nobody's bill. It is
kept in the record until the message's end is written, by whoever has it by then.
"""

import json
from collections.abc import Awaitable
from dataclasses import asdict
from typing import Final, cast

from redis.asyncio import Redis

from rejoin.shared import keys, scripts
from rejoin.shared.connections import redis_or_away
from rejoin.shared.events import Usage, dumps

_FIELD: Final = "used "


async def tell(redis: Redis, message_id: str, attempt: int, used: Usage) -> None:
    """Tell what all calls of an attempt used that is another worker's by now.

    Raises:
        LogUnavailable: Redis is away; a repeat is safe.
    """
    told = [f"{_FIELD}{attempt}", dumps(asdict(used))]
    with redis_or_away():
        await scripts.run(redis, "log/tell_used", [keys.record(message_id)], told)


async def told(redis: Redis, message_id: str) -> dict[int, Usage]:
    """Return what was told, by attempt.

    Raises:
        LogUnavailable: Redis is away.
    """
    with redis_or_away():
        fields = await cast(Awaitable[dict[bytes, bytes]], redis.hgetall(keys.record(message_id)))
    own = {name.decode(): value for name, value in fields.items()}
    return {
        int(name.removeprefix(_FIELD)): Usage(**json.loads(value))
        for name, value in own.items()
        if name.startswith(_FIELD)
    }

"""A connection to Redis that was lost says so, under uvloop too."""

import uvloop

from rejoin.shared.connections import open_redis, ping
from rejoin.shared.errors import LogUnavailable


def test_a_connection_that_closed_just_before_a_command_counts_as_away(redis_url: str) -> None:
    async def send_on_a_closed_one() -> None:
        redis = open_redis(redis_url, retries=0, connections=1)
        await ping(redis)
        connection = await redis.connection_pool.get_connection()
        await redis.connection_pool.release(connection)
        # Lost between the pool's look at it and the command: the pool finds nothing to read.
        connection._writer.transport.abort()
        connection.can_read_destructive = nothing_to_read
        try:
            await ping(redis)
        except LogUnavailable:
            told.append("away")
        del connection.can_read_destructive
        await ping(redis)
        told.append("back")
        await redis.aclose()

    async def nothing_to_read() -> bool:
        return False

    told: list[str] = []
    uvloop.run(send_on_a_closed_one())
    assert told == ["away", "back"]

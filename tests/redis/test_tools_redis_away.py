"""Redis is away while a tool runs: its result waits, and it runs once."""

import asyncio
from collections.abc import Mapping

from redis.asyncio import Redis

from rejoin.shared.connections import open_redis
from rejoin.worker.tools.base import Call
from tests.support.in_process import SCRIPT, until_ended, worker_on
from tests.support.logs import data, names
from tests.support.messages import post, until_true
from tests.support.redis_server import RedisServer
from tests.support.scripted_provider import ScriptedProvider, answer
from tests.support.tools import PlainTool, call, calling


async def test_a_result_that_comes_while_redis_is_away_is_kept(own_redis: RedisServer) -> None:
    ended: list[str] = []

    async def end(arguments: Mapping[str, object], call: Call) -> object:
        call.report("still", 1)
        ended.append(call.tool_call_id)
        return call.tool_call_id

    look = PlainTool(act=end, gate=asyncio.Event())
    provider = ScriptedProvider(calling(call("a"), call("b")), answer("x"))
    redis: Redis = open_redis(own_redis.url)
    async with worker_on(own_redis.url, provider, tools=[look]):
        message_id = await post(redis, model=SCRIPT, tools=["look"])
        await until_true(lambda: len(look.ran) == 2)
        await asyncio.to_thread(own_redis.kill)
        assert look.gate is not None
        look.gate.set()
        await until_true(lambda: len(ended) == 2)
        await asyncio.to_thread(own_redis.start)
        frames = await until_ended(redis, message_id, within=20)
    await redis.aclose()
    assert len(look.ran) == 2
    assert [told["result"] for told in data(frames, "tool_result")] == ended
    assert names(frames)[-1] == "done"

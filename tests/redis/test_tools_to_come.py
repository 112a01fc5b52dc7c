"""A message whose tool is an MCP server's that is still being opened: it waits, within a bound."""

import asyncio
import json

import pytest
from redis.asyncio import Redis

from rejoin.shared import log, record
from rejoin.shared.frames import Frame
from rejoin.worker import answer as answer_module
from rejoin.worker.tools.registry import Tools
from tests.support.in_process import SCRIPT, until_ended, until_events, worker_on
from tests.support.messages import post
from tests.support.scripted_provider import ScriptedProvider, answer
from tests.support.tools import PlainTool, call, calling

NAME = "t__look"


def end_of(frames: list[Frame]) -> dict[str, object]:
    return dict(json.loads(frames[-1].json))


def provider() -> ScriptedProvider:
    return ScriptedProvider(calling(call("c1", NAME)), answer("so"))


async def test_it_goes_on_with_the_tool_when_that_comes(clean_redis_url: str, redis: Redis) -> None:
    look, model = PlainTool(NAME), provider()
    async with worker_on(clean_redis_url, model) as worker:
        worker.kit.tools.expect("t__")
        message_id = await post(redis, model=SCRIPT, tools=[NAME])
        await until_events(redis, message_id, 1)
        worker.kit.tools.add(look)
        worker.kit.tools.came("t__")
        frames = await until_ended(redis, message_id)
    assert end_of(frames)["finish_reason"] == "stop"
    assert len(look.ran) == 1
    assert [tool.name for tool in model.calls[0].tools] == [NAME]


async def test_a_cancel_ends_it_while_it_waits(clean_redis_url: str, redis: Redis) -> None:
    async with worker_on(clean_redis_url, provider()) as worker:
        worker.kit.tools.expect("t__")
        message_id = await post(redis, model=SCRIPT, tools=[NAME])
        await until_events(redis, message_id, 1)
        await record.cancel(redis, message_id)
        frames = await until_ended(redis, message_id)
    assert end_of(frames)["finish_reason"] == "cancelled"


async def test_a_worker_that_leaves_meanwhile_leaves_it_to_another(
    clean_redis_url: str, redis: Redis
) -> None:
    async with worker_on(clean_redis_url, provider()) as worker:
        worker.kit.tools.expect("t__")
        message_id = await post(redis, model=SCRIPT, tools=[NAME])
        await until_events(redis, message_id, 1)
        await worker.stop()
    assert [frame.name for frame in await log.read_all(redis, message_id)] == ["start"]
    look = PlainTool(NAME)
    async with worker_on(clean_redis_url, provider(), tools=[look]):
        frames = await until_ended(redis, message_id)
    assert end_of(frames)["finish_reason"] == "stop"
    assert len(look.ran) == 1


async def test_one_that_never_comes_fails_it_in_the_end(
    clean_redis_url: str, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answer_module, "_TOOLS_SECONDS", 0.05)
    async with worker_on(clean_redis_url, provider()) as worker:
        worker.kit.tools.expect("t__")
        frames = await until_ended(redis, await post(redis, model=SCRIPT, tools=[NAME]))
    assert (end_of(frames)["code"], frames[-1].name) == ("invalid_request", "failed")


async def test_only_what_may_still_come_is_waited_for() -> None:
    tools = Tools([PlainTool("t__there")])
    tools.expect("t__")
    async with asyncio.timeout(10):
        await tools.settle(["t__there", "other", "tt__x"], seconds=3600)
        await tools.settle(["t__gone"], seconds=0.01)
        tools.came("t__")
        await tools.settle(["t__gone"], seconds=3600)

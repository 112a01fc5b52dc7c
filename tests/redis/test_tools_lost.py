"""Redis loses a step while its calls run: what was lost is taken for nothing else."""

import asyncio

import pytest
from redis.asyncio import Redis

from rejoin.shared import keys, log, waiting
from rejoin.shared.asks import Answer, Kind
from tests.redis.test_tools_waiting import CLIENTS
from tests.support.in_process import SCRIPT, worker_on
from tests.support.logs import data, names
from tests.support.messages import LIFE, post, until
from tests.support.scripted_provider import ScriptedProvider, answer
from tests.support.tools import PlainTool, call, calling


async def _has(redis: Redis, message_id: str, name: str) -> bool:
    return name in names(await log.read_all(redis, message_id))


async def test_the_answer_to_a_call_that_redis_lost_is_no_answer_to_another_of_its_id(
    clean_redis_url: str, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rejoin.worker.story.MOST_BYTES", 0)  # so that nothing is told again
    look = PlainTool(gate=asyncio.Event())
    provider = ScriptedProvider(
        calling(call("c", "ask", who="one"), call("b")),
        calling(call("c", "ask", who="two")),
        answer("x"),
    )
    async with worker_on(clean_redis_url, provider, tools=[look]):
        message_id = await post(redis, model=SCRIPT, tools=["look", CLIENTS])
        await until(lambda: _has(redis, message_id, "tool_start"))
        said = Answer(Kind.RESULT, "of one")
        await waiting.answer(redis, message_id, "c", said, life_seconds=LIFE)
        await until(lambda: _has(redis, message_id, "tool_result"))
        start, *lost = await log.read_all(redis, message_id)
        await redis.delete(keys.answers(message_id))
        await redis.xdel(keys.log(message_id), *(str(frame.id) for frame in lost))
        look.ran[0].report("n", 1)  # its append finds the log shorter
        await until(lambda: _has(redis, message_id, "tool_waiting"))
        frames = await log.read_all(redis, message_id)
    assert frames[0] == start
    (asked,) = data(frames, "tool_call")
    assert asked["arguments"] == {"who": "two"}
    assert asked["tool_call_id"] != "c"
    assert "tool_result" not in names(frames)

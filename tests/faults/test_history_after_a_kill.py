"""A worker is killed while tools run: another ends the message, and its conversation goes on."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support.caller import caller, data_of, visible_text
from tests.support.processes import rejoin_stack
from tests.support.redis_server import RedisServer
from tests.support.tool_talk import ANSWERED, MODELS, ToolTalk, results_in

UNKNOWN: Final = "outcome unknown"
HEARD: Final = "nothing to be heard"
TOOLS: Final = f'''\
"""One tool takes its time, the other fails at once."""

import time

from rejoin.worker.tools import ToolError, tool


@tool
def look(at: str) -> str:
    """Look there."""
    time.sleep(1)
    return at


@tool
def listen() -> str:
    """Listen."""
    raise ToolError("{HEARD}")
'''


@pytest.mark.parametrize("event", ["tool_start", "tool_error"])
@pytest.mark.parametrize("name", ["openai", "anthropic"])
async def test_a_conversation_goes_on_after_its_worker_was_killed(
    own_redis: RedisServer, tmp_path: Path, name: str, event: str
) -> None:
    file = tmp_path / "my_tools.py"
    file.write_text(TOOLS)
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(ToolTalk(name))
        settings = {
            **dict([server.environ()]),
            "REJOIN_TOOLS": str(file),
            "REJOIN_LEASE_SECONDS": "1",
        }
        # In a thread: the server, which is in this process, answers meanwhile.
        started = rejoin_stack(own_redis, settings=settings)
        run = await asyncio.to_thread(stack.enter_context, started)
        api = await stack.enter_async_context(caller(run.url))
        asked: dict[str, Any] = {
            "model": MODELS[name],
            "tools": ["look", "listen"],
            "reasoning_effort": "low",
        }
        async with api.tailed("tools", **asked) as (first, tail):
            await tail.until(lambda: any(frame.event == event for frame in tail.frames))
            run.worker.kill()
            await asyncio.to_thread(run.new_worker().start)
            frames = await tail.read_until_end(within=20)
        assert visible_text(frames).endswith(ANSWERED)
        told = {said["tool_call_id"]: said["error"] for said in data_of(frames, "tool_error")}
        assert told.keys() == {"call_a", "call_b"}
        # A kill at a call's start may come after the other one's end.
        heard = event == "tool_error" or HEARD in told["call_b"]
        ends = [UNKNOWN, HEARD if heard else UNKNOWN]
        assert [end in told[call] for end, call in zip(ends, sorted(told), strict=True)] == [
            True
        ] * 2
        conversation = (await api.snapshot(first))["conversation_id"]
        second = await api.accepted("tools", conversation_id=conversation, **asked)
        assert visible_text(await api.log(second)).endswith(ANSWERED)
        shown = results_in(server.asked(second)[0])
        assert [wanted in said for wanted, said in zip(ends, shown, strict=True)] == [True, True]
        assert server.refusals == []
        run.assert_no_traceback()

"""Messages that wait for people and clients: beside one slot, and while everything restarts."""

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from tests.support.caller import Caller, assert_whole_log, caller, data_of, names, until
from tests.support.processes import Stack, rejoin_stack
from tests.support.provider_server import provider_process
from tests.support.redis_server import RedisServer

MESSAGES: Final = 20
PATIENCE: Final = 30.0  # seconds: one after the other, in one slot
FILES: Final = {"name": "files", "description": "Lists", "parameters": {"type": "object"}}
ANSWERS: Final = {"ring": {"approve": True}, "files": {"result": "rang"}}  # by their tools
TOOLS: Final = '''\
"""A tool that needs a person's consent."""

from rejoin.worker.tools import tool


@tool(needs_approval=True)
def ring() -> str:
    """Rings."""
    return "rang"
'''


class Waiting(NamedTuple):
    """A stack whose worker has one slot, and messages that wait, with their calls' tools."""

    stack: Stack
    api: Caller
    messages: dict[str, str]


@pytest.fixture
async def waiting(own_redis: RedisServer, tmp_path: Path) -> AsyncIterator[Waiting]:
    file = tmp_path / "own_tools.py"
    file.write_text(TOOLS, encoding="utf-8")
    with provider_process() as base_url:
        settings = {
            "OPENAI_BASE_URL": base_url,
            "REJOIN_TOOLS": str(file),
            "REJOIN_MAX_JOBS": "1",
            "REJOIN_LEASE_SECONDS": "1",
        }
        with rejoin_stack(own_redis, settings=settings) as stack:
            async with caller(stack.url) as api:
                calls = list(ANSWERS) * (MESSAGES // len(ANSWERS))
                asked = {await _ask(api, name): name for name in calls}
                await _until_they_wait(api, list(asked))
                yield Waiting(stack, api, asked)
            stack.assert_no_traceback()


async def test_many_messages_wait_and_leave_the_one_slot_to_another(waiting: Waiting) -> None:
    frames = await waiting.api.log(await waiting.api.accepted("the slot is free"))
    assert frames[-1].event == "done"
    for message_id in waiting.messages:
        seen = await waiting.api.snapshot(message_id)
        assert (seen["status"], seen["attempt"]) == ("waiting", 1)  # nobody looked at it again


async def test_messages_that_wait_go_on_after_a_restart_of_everything(waiting: Waiting) -> None:
    stack, api = waiting.stack, waiting.api
    stack.worker.kill()
    stack.api.kill()
    stack.redis.restart()
    stack.api.start()
    stack.worker.start()
    await _until_they_wait(api, list(waiting.messages))
    for message_id, name in waiting.messages.items():
        (call,) = (await api.snapshot(message_id))["tool_calls"]
        answered = await api.http.post(
            api.link(message_id, f"/tools/{call['tool_call_id']}"), json=ANSWERS[name]
        )
        assert answered.status_code == 202, answered.text
    for message_id in waiting.messages:
        frames = await api.log(message_id, within=PATIENCE)
        assert_whole_log(frames)
        assert names(frames)[:5] == ["start", "text", "tool_call", "tool_waiting", "reset"]
        assert data_of(frames, "reset")[0]["reason"] == "answered"
        assert [told["result"] for told in data_of(frames, "tool_result")] == ["rang"]
        assert frames[-1].data["finish_reason"] == "stop"


async def _ask(api: Caller, name: str) -> str:
    tools = [FILES, "ring"]
    return await api.accepted("Do it.", model=f"openai/sim?words=1&calls={name}", tools=tools)


async def _until_they_wait(api: Caller, message_ids: Sequence[str]) -> None:
    async def wait() -> bool:
        seen = [await api.snapshot(message_id) for message_id in message_ids]
        return all(found["status"] == "waiting" for found in seen)

    await until(wait, within=PATIENCE)

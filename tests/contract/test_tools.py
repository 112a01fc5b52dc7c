"""POST /api/messages/{id}/tools/{tool_call_id}: messages that wait, and go on when answered."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any, Final

import pytest

from tests.support.caller import (
    UNKNOWN_ID,
    Caller,
    assert_names,
    assert_problem,
    assert_whole_log,
    data_of,
    names,
    until,
    visible_text,
)
from tests.support.provided import Provided, Simulated, provided_by, simulated
from tests.support.redis_server import RedisServer, redis_server

TOOLS: Final = '''"""Tools for the tests."""

from rejoin.worker.tools import tool


@tool(needs_approval=True)
def ring(who: str = "you") -> str:
    """Rings somebody."""
    return f"rang {who}"
'''
FILES: Final = {"name": "files", "description": "Lists", "parameters": {"type": "object"}}
WAITS: Final = ["start", "text", "tool_call", "tool_waiting"]
YES: Final = {"approve": True}


@pytest.fixture(scope="module")
def tool_file(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("tools") / "own_tools.py"
    path.write_text(TOOLS, encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def made(tool_file: str) -> Iterator[Simulated]:
    with redis_server() as redis, simulated(redis, REJOIN_TOOLS=tool_file) as stack:
        yield stack


@pytest.fixture
async def provided(made: Simulated) -> AsyncIterator[Provided]:
    async with provided_by(made, tools=[FILES, "ring"]) as ready:
        yield ready


async def waiting(provided: Provided, calls: str = "files") -> tuple[str, list[dict[str, Any]]]:
    """A message that waits for these calls: its id, and what it shows of them."""
    message_id = await provided.ask(f"words=1&calls={calls}")

    async def waits() -> bool:
        return (await provided.api.snapshot(message_id))["status"] == "waiting"

    await until(waits)
    return message_id, (await provided.api.snapshot(message_id))["tool_calls"]


async def say(api: Caller, message_id: str, call_id: str, body: object) -> Any:
    return await api.http.post(api.link(message_id, f"/tools/{call_id}"), json=body)


async def test_a_clients_tool_waits_for_its_result_and_the_answer_goes_on(
    provided: Provided,
) -> None:
    message_id, (call,) = await waiting(provided)
    assert (call["name"], call["arguments"], call["needs"]) == ("files", {}, "result")
    assert (call["ended"], call["running"], call["step"]) == (False, False, 1)
    page = await provided.api.page(message_id)
    assert [event["event"] for event in page["events"]] == WAITS
    assert page["events"][-1]["data"] == {
        "tool_call_id": call["tool_call_id"], "name": "files", "needs": "result",
    }  # fmt: skip
    said = await say(provided.api, message_id, call["tool_call_id"], {"result": ["a", "ö"]})
    assert said.status_code == 202
    frames = await provided.api.log(message_id)
    assert_whole_log(frames)
    assert data_of(frames, "tool_result")[0]["result"] == ["a", "ö"]
    assert visible_text(frames).endswith('["a","ö"] ')
    assert [frame["step"] for frame in data_of(frames, "step")] == [1, 2]
    assert (frames[-1].event, frames[-1].data["finish_reason"]) == ("done", "stop")
    seen = await provided.api.snapshot(message_id)
    assert [call["result"] for call in seen["tool_calls"]] == [["a", "ö"]]


@pytest.mark.parametrize(
    ("body", "event"), [(YES, "tool_result"), ({"approve": False}, "tool_error")]
)
async def test_a_tool_runs_when_somebody_approved_of_it_and_only_then(
    provided: Provided, body: dict[str, bool], event: str
) -> None:
    message_id, (call,) = await waiting(provided, "ring")
    assert call["needs"] == "approval"
    assert (await say(provided.api, message_id, call["tool_call_id"], body)).status_code == 202
    frames = await provided.api.log(message_id)
    assert_whole_log(frames)
    assert ("tool_start" in names(frames)) is body["approve"]
    (ended,) = data_of(frames, event)
    assert ended["tool_call_id"] == call["tool_call_id"]
    if body["approve"]:
        assert ended["result"] == "rang you"
    assert frames[-1].event == "done"


async def test_it_goes_on_when_the_last_call_of_the_step_is_answered(provided: Provided) -> None:
    message_id, (first, second) = await waiting(provided, "files,ring")
    before = await provided.api.page(message_id)
    answered = await say(provided.api, message_id, first["tool_call_id"], {"error": "no disk"})
    assert answered.status_code == 202
    for _ in range(2):
        again = await say(provided.api, message_id, first["tool_call_id"], {"error": "no disk"})
        assert again.status_code == 202
    other = await say(provided.api, message_id, first["tool_call_id"], {"result": 1})
    assert_problem(other, 409)
    assert await provided.api.page(message_id) == before
    assert (await provided.api.snapshot(message_id))["status"] == "waiting"
    await say(provided.api, message_id, second["tool_call_id"], YES)
    frames = await provided.api.log(message_id)
    assert_whole_log(frames)
    assert data_of(frames, "tool_error")[0]["error"] == "no disk"
    assert data_of(frames, "tool_result")[0]["result"] == "rang you"


async def test_the_same_answer_many_times_at_once_runs_the_tool_once(provided: Provided) -> None:
    message_id, (call,) = await waiting(provided, "ring")
    answers = await asyncio.gather(
        *(say(provided.api, message_id, call["tool_call_id"], YES) for _ in range(8))
    )
    assert 202 in {answer.status_code for answer in answers}
    frames = await provided.api.log(message_id)
    assert names(frames).count("tool_start") == 1
    # Once it has ended no answer is taken any more, the same neither.
    assert_problem(await say(provided.api, message_id, call["tool_call_id"], YES), 409)


@pytest.mark.parametrize("sent", [{}, {"json": {"mode": "after_step"}}], ids=["now", "after step"])
async def test_a_cancel_ends_a_message_that_waits_at_once(
    provided: Provided, sent: dict[str, Any]
) -> None:
    message_id, (call, _) = await waiting(provided, "files,ring")
    cancelled = await provided.api.cancel(message_id, **sent)
    assert cancelled.status_code == 202
    frames = await provided.api.log(message_id, within=3)
    assert_whole_log(frames)
    assert names(frames)[-4:] == ["tool_error", "tool_error", "usage", "done"]
    assert frames[-1].data["finish_reason"] == "cancelled"
    assert_problem(await say(provided.api, message_id, call["tool_call_id"], {"result": 1}), 409)
    assert (await provided.api.cancel(message_id, **sent)).status_code == 202
    assert (await provided.api.snapshot(message_id))["status"] == "cancelled"


async def test_a_message_waits_over_the_death_of_its_worker(provided: Provided) -> None:
    message_id, (call,) = await waiting(provided)
    provided.stack.worker.kill()
    try:
        said = await say(provided.api, message_id, call["tool_call_id"], {"result": None})
        assert said.status_code == 202
        assert (await provided.api.snapshot(message_id))["text"] == "plain0 "
    finally:
        provided.stack.new_worker().start()
    frames = await provided.api.log(message_id)
    assert data_of(frames, "tool_result")[0]["result"] is None
    assert frames[-1].event == "done"


async def test_who_answers_wrongly_is_told_what_is_wrong(provided: Provided) -> None:
    message_id, (call,) = await waiting(provided)
    call_id = call["tool_call_id"]
    for body, field in (({}, "approve"), (YES, "approve"), ({"result": 1, "a": 1}, "a")):
        assert_names(assert_problem(await say(provided.api, message_id, call_id, body), 422), field)
    assert_problem(await say(provided.api, message_id, "call_x", {"result": 1}), 404)
    assert_problem(await say(provided.api, UNKNOWN_ID, call_id, {"result": 1}), 404)
    address = provided.api.link(message_id, f"/tools/{call_id}")
    assert_problem(await provided.api.http.post(address, content=b"{"), 415)
    json = {"content-type": "application/json"}
    assert_problem(await provided.api.http.post(address, content=b"{", headers=json), 400)
    beyond = b'{"result": [1e999]}'
    assert_problem(await provided.api.http.post(address, content=beyond, headers=json), 400)
    assert (await provided.api.snapshot(message_id))["status"] == "waiting"
    await provided.api.cancel(message_id)


async def test_a_call_that_nobody_answers_in_time_fails_and_the_answer_goes_on(
    own_redis: RedisServer, tool_file: str
) -> None:
    settings = {"REJOIN_TOOL_WAIT_SECONDS": "1", "REJOIN_TOOLS": tool_file}
    with simulated(own_redis, **settings) as made:
        async with provided_by(made, tools=[FILES]) as provided:
            message_id = await provided.ask("words=1&calls=files")
            frames = await provided.api.log(message_id)
            assert_whole_log(frames)
            (late,) = data_of(frames, "tool_error")
            assert late["error"]
            assert frames[-1].data["finish_reason"] == "stop"
            said = await say(provided.api, message_id, late["tool_call_id"], {"result": 1})
            assert_problem(said, 409)

"""The Python client and tools: what it sends of them, and how it answers a call that waits."""

import asyncio
import json
from typing import Any

import pytest

from rejoin.client import BadRequest, Client, Conflict, NotFound, calls_of, open_calls
from rejoin.client.reading import changes
from rejoin.shared.fold import Message
from tests.clients.test_client_requests import ACCEPTED
from tests.clients.tool_log import ADD, CALL, MULTIPLY, START, tool
from tests.clients.toy_server import Entry, Reply, ToyLog, problem, reply, toy_server

ANSWERED = reply(202, b"{}")


@pytest.fixture(autouse=True)
def _no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    sleep = asyncio.sleep
    monkeypatch.setattr("rejoin.client.exchange.asyncio.sleep", lambda _: sleep(0))


async def test_tools_are_sent_by_name_and_as_definitions() -> None:
    mine = {"name": "mine", "description": "Mine.", "parameters": {"type": "object"}}
    async with toy_server(lambda _: ACCEPTED) as toy, Client(toy.url) as client:
        await client.send("x", tools=["add", mine])
    assert json.loads(toy.requests[0].body) == {"input": "x", "tools": ["add", mine]}


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        ({"approve": True}, {"approve": True}),
        ({"approve": False}, {"approve": False}),
        ({"result": None}, {"result": None}),
        ({"result": [1, {"é": 2}]}, {"result": [1, {"é": 2}]}),
        ({"error": "no"}, {"error": "no"}),
    ],
)
async def test_a_call_is_answered_though_the_first_reply_is_lost(
    answer: dict[str, Any], body: dict[str, object]
) -> None:
    lost = [ANSWERED.cut(9), problem(503, "x")]
    async with toy_server(lambda _: ANSWERED, lost) as toy, Client(toy.url) as client:
        await client.answer_tool("m", "a/b", **answer)
    assert [request.path for request in toy.requests] == ["/api/messages/m/tools/a%2Fb"] * 3
    assert [json.loads(request.body) for request in toy.requests] == [body] * 3
    assert {request.headers["content-type"] for request in toy.requests} == {"application/json"}


@pytest.mark.parametrize(
    "answer", [{}, {"approve": True, "error": "x"}, {"result": 1, "error": "x"}]
)
async def test_an_answer_is_one_of_three(answer: dict[str, Any]) -> None:
    async with toy_server(lambda _: ANSWERED) as toy, Client(toy.url) as client:
        with pytest.raises(BadRequest, match="one of approve, result and error"):
            await client.answer_tool("m", "c", **answer)
    assert toy.requests == []


@pytest.mark.parametrize(
    ("refused", "error"),
    [
        (problem(409, "another answer stands"), Conflict),
        (problem(404, "no such call"), NotFound),
        (problem(422, "it needs a result"), BadRequest),
    ],
)
async def test_an_answer_that_is_refused_is_an_error(
    refused: Reply, error: type[Exception]
) -> None:
    async with toy_server(lambda _: refused) as toy, Client(toy.url) as client:
        with pytest.raises(error):
            await client.answer_tool("m", "c", approve=True)
    assert len(toy.requests) == 1


async def test_a_cancel_may_let_the_step_end() -> None:
    async with toy_server(lambda _: ANSWERED) as toy, Client(toy.url) as client:
        await client.cancel("m")
        await client.cancel("m", after_step=True)
    now, later = toy.requests
    assert (now.body, json.loads(later.body)) == (b"", {"mode": "after_step"})


async def test_a_message_tells_its_calls_as_they_stand() -> None:
    log = ToyLog(
        [
            START,
            tool("1-1", "call", ADD, arguments={"a": 1}),
            tool("1-2", "call", MULTIPLY, arguments={}),
            tool("1-3", "waiting", ADD, needs="approval"),
            tool("1-4", "result", MULTIPLY, result=None),
            Entry("2-0", "reset", {"after": "1-3", "reason": "takeover"}),
            Entry("2-1", "done", {"finish_reason": "stop"}),
        ]
    )
    message = Message()
    async with toy_server(log) as toy, Client(toy.url) as client:
        async for _ in changes(client.tail("m"), message):
            pass
    assert [call.tool_call_id for call in calls_of(message)] == [ADD, MULTIPLY]
    (add, multiply) = open_calls(message)
    assert (add.name, add.waits, multiply.waits) == ("add", "approval", None)
    assert CALL[ADD] == add.name


async def test_a_turn_of_a_conversation_has_its_calls() -> None:
    call = {
        "tool_call_id": ADD,
        "step": 1,
        "name": "add",
        "arguments": {},
        "result": 3,
        "error": None,
    }
    found = {
        "id": "c",
        "created_at": "2026-01-01T00:00:00Z",
        "updated_at": "2026-01-01T00:00:01Z",
        "active_message_id": None,
        "messages": [{"id": "m", "parent_id": None, "role": "assistant", "tool_calls": [call]}],
    }
    answer = reply(200, json.dumps(found).encode())
    async with toy_server(lambda _: answer) as toy, Client(toy.url) as client:
        (turn,) = (await client.conversation("c")).messages
    assert turn.tool_calls == [call]

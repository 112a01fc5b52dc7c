"""The Python client's requests: one message for one send, whatever is lost on the way."""

import asyncio
import json

import pytest

from rejoin.client import (
    BadRequest,
    Busy,
    Client,
    Conflict,
    NotFound,
    OverLimit,
    Unavailable,
    UnexpectedReply,
    Unreachable,
)
from tests.clients.toy_server import Reply, Request, no_content, problem, reply, toy_server
from tests.support.redis_server import free_port

WITHIN = 20
BODY = {
    "message_id": "01980000-0000-7000-8000-000000000001",
    "conversation_id": "c",
    "status": "queued",
    "links": {"self": "/s", "events": "/e", "cancel": "/c", "of_tomorrow": "/t"},
    "of_tomorrow": 1,
}
ACCEPTED = reply(202, json.dumps(BODY).encode())


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds waited for between tries; they pass at once."""
    waited: list[float] = []
    sleep = asyncio.sleep

    async def note(seconds: float) -> None:
        waited.append(seconds)
        await sleep(0)

    monkeypatch.setattr("rejoin.client.exchange.asyncio.sleep", note)
    return waited


def keys(requests: list[Request]) -> set[str]:
    return {request.headers["idempotency-key"] for request in requests}


async def test_a_lost_reply_is_asked_for_again_under_the_same_key() -> None:
    lost = [ACCEPTED.cut(at, reset=at % 2 == 0) for at in range(0, len(ACCEPTED.raw), 17)]
    async with toy_server(lambda _: ACCEPTED) as toy, Client(toy.url) as client:
        for reply_cut in lost:
            toy.requests.clear()
            toy.answers = [reply_cut, reply_cut]
            async with asyncio.timeout(WITHIN):
                accepted = await client.send("hi", model="demo/echo")
            assert accepted.message_id == BODY["message_id"]
            assert len(toy.requests) == 3
            assert len(keys(toy.requests)) == 1
            assert {request.body for request in toy.requests} == {toy.requests[0].body}


async def test_two_sends_have_two_keys() -> None:
    async with toy_server(lambda _: ACCEPTED) as toy, Client(toy.url) as client:
        await client.send("hi")
        await client.send("hi")
    assert len(keys(toy.requests)) == 2


async def test_ones_own_key_is_kept() -> None:
    async with toy_server(lambda _: ACCEPTED) as toy, Client(toy.url) as client:
        await client.send("hi", idempotency_key="mine")
    assert keys(toy.requests) == {"mine"}


async def test_what_is_sent_is_what_was_given() -> None:
    async with toy_server(lambda _: ACCEPTED) as toy, Client(toy.url) as client:
        await client.send("é\u2028😀", model="demo/echo", temperature=0.5, metadata={"a": "b"})
        await client.send([{"role": "user", "content": "x"}], stop=["\n"])
    assert [json.loads(request.body) for request in toy.requests] == [
        {"input": "é\u2028😀", "model": "demo/echo", "temperature": 0.5, "metadata": {"a": "b"}},
        {"messages": [{"role": "user", "content": "x"}], "stop": ["\n"]},
    ]
    assert toy.requests[0].headers["content-type"] == "application/json"


@pytest.mark.parametrize("status", [429, 502, 503, 504])
async def test_a_busy_server_is_asked_again(status: int, waits: list[float]) -> None:
    busy = problem(status, "later", "retry-after: 3")
    async with toy_server(lambda _: ACCEPTED, [busy]) as toy, Client(toy.url) as client:
        await client.send("hi")
    assert len(keys(toy.requests)) == 1
    assert len(toy.requests) == 2
    assert [3 <= seconds < 5 for seconds in waits] == [True]


async def test_retry_after_may_be_a_date(waits: list[float]) -> None:
    busy = problem(503, "later", "retry-after: Fri, 21 Nov 2025 10:00:00 GMT")
    async with toy_server(lambda _: ACCEPTED, [busy]) as toy, Client(toy.url) as client:
        await client.send("hi")
    assert [seconds < 1 for seconds in waits] == [True]


@pytest.mark.parametrize(("status", "error"), [(503, Unavailable), (429, OverLimit)])
async def test_a_wait_beyond_the_patience_is_not_begun(
    status: int, error: type[Unavailable | OverLimit], waits: list[float]
) -> None:
    busy = problem(status, "the queue is full", "retry-after: 60")
    async with toy_server(lambda _: busy) as toy, Client(toy.url) as client:
        with pytest.raises(error, match="the queue is full") as raised:
            await client.send("hi")
    assert raised.value.retry_after_seconds == 60
    assert (len(toy.requests), waits) == (1, [])


async def test_no_server_is_unreachable_after_the_patience() -> None:
    async with Client(f"http://127.0.0.1:{free_port()}", patience_seconds=0.3) as client:
        with pytest.raises(Unreachable, match="no Rejoin server answers"):
            async with asyncio.timeout(WITHIN):
                await client.send("hi")


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (problem(422, "x", errors=[{"loc": ["model"], "msg": "x"}]), BadRequest),
        (problem(400, "x"), BadRequest),
        (problem(413, "x"), BadRequest),
        (problem(404, "x"), NotFound),
        (problem(409, "x"), Conflict),
        (problem(500, "x"), UnexpectedReply),
        (problem(401, "x"), UnexpectedReply),
        (reply(200, b"<h1>hello</h1>", content_type="text/html"), UnexpectedReply),
        (reply(202, b"{}"), UnexpectedReply),
        (reply(404, b"[not json", content_type="application/json"), NotFound),
        (no_content(), UnexpectedReply),
    ],
)
async def test_a_refusal_is_an_error_at_once(answer: Reply, error: type[Exception]) -> None:
    async with toy_server(lambda _: answer) as toy, Client(toy.url) as client:
        with pytest.raises(error):
            await client.send("hi")
    assert len(toy.requests) == 1


async def test_the_wrong_field_is_named() -> None:
    answer = problem(422, "too hot", errors=[{"loc": ["messages", 0, "role"], "msg": "x"}])
    async with toy_server(lambda _: answer) as toy, Client(toy.url) as client:
        with pytest.raises(BadRequest, match="too hot") as raised:
            await client.send("hi")
    assert (raised.value.field, raised.value.status) == (("messages", 0, "role"), 422)


async def test_half_a_surrogate_pair_is_refused_here() -> None:
    async with toy_server(lambda _: ACCEPTED) as toy, Client(toy.url) as client:
        with pytest.raises(BadRequest, match="surrogate"):
            await client.send("a\ud800")
    assert toy.requests == []


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://a/", "http://", "http://a:b/", ""])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(BadRequest):
        Client(url)


async def test_a_server_below_a_path_is_asked_there() -> None:
    async with toy_server(lambda _: ACCEPTED) as toy, Client(f"{toy.url}/llm/") as client:
        await client.send("hi")
        with pytest.raises(UnexpectedReply):
            await client.models()
    assert [request.path for request in toy.requests] == ["/llm/api/messages", "/llm/api/models"]


async def test_an_id_is_a_path_segment_whatever_it_holds() -> None:
    gone = problem(404, "no such message")
    async with toy_server(lambda _: gone) as toy, Client(toy.url) as client:
        with pytest.raises(NotFound):
            await client.snapshot("../models?a")
        with pytest.raises(NotFound):
            await client.cancel("a/b")
    assert [request.path for request in toy.requests] == [
        "/api/messages/..%2Fmodels%3Fa",
        "/api/messages/a%2Fb/cancel",
    ]


async def test_a_cancel_is_repeated_until_it_is_answered() -> None:
    asked = reply(202, b"{}")
    answers = [asked.cut(9), problem(503, "x")]
    async with toy_server(lambda _: asked, answers) as toy, Client(toy.url) as client:
        await client.cancel("m")
    assert [request.method for request in toy.requests] == ["POST"] * 3


GOING_ON = {
    "conversation_id": "c",
    "parent_id": "p",
    "if_busy": "reject",
    "model": "demo/echo",
}


async def test_a_conversation_is_gone_on_with() -> None:
    async with toy_server(lambda _: ACCEPTED) as toy, Client(toy.url) as client:
        await client.send(
            "x", conversation_id="c", parent_id="p", if_busy="reject", model="demo/echo"
        )
        await client.send(regenerate="m")
    assert [json.loads(request.body) for request in toy.requests] == [
        {"input": "x", **GOING_ON},
        {"regenerate": "m"},
    ]


async def test_what_a_message_waits_for_is_told() -> None:
    waiting = {"message_id": "before", "status": "streaming", "of_tomorrow": 1}
    queued = reply(202, json.dumps({**BODY, "waiting_for": waiting}).encode())
    async with toy_server(lambda _: queued) as toy, Client(toy.url) as client:
        accepted = await client.send("x", conversation_id="c")
    assert accepted.waiting_for is not None
    assert (accepted.waiting_for.message_id, accepted.waiting_for.status) == ("before", "streaming")


async def test_a_busy_conversation_names_the_message_that_runs() -> None:
    busy = problem(409, "another message is running", active_message_id="before")
    async with toy_server(lambda _: busy) as toy, Client(toy.url) as client:
        with pytest.raises(Busy) as raised:
            await client.send("x", conversation_id="c", if_busy="reject")
    assert raised.value.active_message_id == "before"
    assert len(toy.requests) == 1


LISTED = {"id": "c", "created_at": "2026-01-01T00:00:00Z", "updated_at": "2026-01-01T00:00:01Z"}
CONVERSATION = {
    **LISTED,
    "active_message_id": "m2",
    "messages": [
        {"id": "m1", "parent_id": None, "role": "user", "content": "x", "of_tomorrow": 1},
        {"id": "m2", "parent_id": "m1", "role": "assistant", "status": "queued", "text": ""},
    ],
}


async def test_a_reply_that_was_spoilt_on_the_way_is_asked_for_again() -> None:
    spoilt = reply(202, b"no gzip at all", "content-encoding: gzip")
    async with toy_server(lambda _: ACCEPTED, [spoilt]) as toy, Client(toy.url) as client:
        accepted = await client.send("hi", model="demo/echo")
    assert accepted.message_id == BODY["message_id"]
    assert [len(toy.requests), len(keys(toy.requests))] == [2, 1]


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:1", "ftp://nowhere"])
def test_a_proxy_that_cannot_be_used_is_said(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy)
    with pytest.raises(BadRequest, match="the environment's proxy"):
        Client("http://rejoin.invalid")


async def test_conversations_are_listed_page_by_page() -> None:
    first = reply(200, json.dumps({"conversations": [LISTED], "next_cursor": "n"}).encode())
    last = reply(200, json.dumps({"conversations": [], "next_cursor": None}).encode())
    async with toy_server(lambda _: last, [first]) as toy, Client(toy.url) as client:
        page = await client.conversations()
        assert [found.id for found in page.conversations] == ["c"]
        assert (await client.conversations(limit=1, cursor=page.next_cursor)).next_cursor is None
    assert [request.path for request in toy.requests] == [
        "/api/conversations",
        "/api/conversations?limit=1&cursor=n",
    ]


async def test_a_conversation_has_its_messages_and_the_one_that_runs() -> None:
    found = reply(200, json.dumps(CONVERSATION).encode())
    async with toy_server(lambda _: found) as toy, Client(toy.url) as client:
        conversation = await client.conversation("a/c")
    assert toy.requests[0].path == "/api/conversations/a%2Fc"
    assert conversation.active_message_id == "m2"
    asked, answered = conversation.messages
    assert (asked.role, asked.content, asked.parent_id) == ("user", "x", None)
    assert (answered.status, answered.parent_id, answered.text) == ("queued", "m1", "")


async def test_a_conversation_is_deleted_though_the_first_reply_is_lost() -> None:
    async with toy_server(lambda _: no_content()) as toy, Client(toy.url) as client:
        toy.answers = [no_content().cut(5)]
        await client.delete_conversation("c")
    assert [(request.method, request.path) for request in toy.requests] == [
        ("DELETE", "/api/conversations/c")
    ] * 2


async def test_an_unknown_conversation_is_not_found() -> None:
    gone = problem(404, "no such conversation")
    async with toy_server(lambda _: gone) as toy, Client(toy.url) as client:
        for asked in (client.conversation("c"), client.delete_conversation("c")):
            with pytest.raises(NotFound, match="no such conversation"):
                await asked

"""A message whose log has expired from Redis: the same addresses, answered from the database."""

from collections.abc import AsyncIterator, Iterator

import pytest

from rejoin.client import Client
from rejoin.shared.ids import EventId
from tests.support.caller import Caller, assert_problem, caller, until, visible_text
from tests.support.processes import Stack, rejoin_stack
from tests.support.redis_server import redis_server
from tests.support.sse_reader import open_tail, sse_request

SHORT = {"REJOIN_LOG_TTL_SECONDS": "1", "REJOIN_KEEPALIVE_SECONDS": "0.5"}
TEXT = "naïve 😀 words"


@pytest.fixture(scope="module")
def module_short_stack() -> Iterator[Stack]:
    """An API and a worker whose logs live a second."""
    with redis_server() as redis, rejoin_stack(redis, settings=SHORT) as stack:
        yield stack


@pytest.fixture
async def api(module_short_stack: Stack) -> AsyncIterator[Caller]:
    async with caller(module_short_stack.url) as speaker:
        yield speaker
    module_short_stack.assert_no_traceback()


async def expired(api: Caller, stack: Stack, message_id: str) -> str:
    """Read a message to its end and wait until Redis forgot it; its last event's id."""
    last = (await api.log(message_id))[-1].id
    assert last is not None
    with stack.redis.client() as client:

        async def gone() -> bool:
            return client.keys(f"*{message_id}*") == []

        await until(gone)
    return last


async def test_its_events_snapshot_and_cancel_are_still_there(
    api: Caller, module_short_stack: Stack
) -> None:
    message_id = await api.accepted(TEXT)
    before = await api.snapshot(message_id, wait=10)
    last = await expired(api, module_short_stack, message_id)
    frames = await api.log(message_id)
    assert [frame.event for frame in frames] == ["start", "text", "usage", "done"]
    assert [frame.id for frame in frames] == ["2-0", "2-1", "2-2", "2-3"]
    assert visible_text(frames) == TEXT
    assert (frames[0].data["message_id"], frames[0].data["attempt"]) == (message_id, 2)
    for position in (last, "2-3"):
        gone = await api.http.get(api.events(message_id), headers={"Last-Event-ID": position})
        assert gone.status_code == 204
    async with open_tail(api.events(message_id), last_event_id="1-1") as tail:
        reset, *rest = await tail.read_until_end()
    assert (reset.event, reset.id, reset.data["after"]) == ("reset", None, None)
    assert rest == frames
    after = await api.snapshot(message_id)
    assert after == before
    assert_problem(await api.cancel(message_id), 409)


async def test_a_cancelled_one_is_cancelled_again_with_202(
    api: Caller, module_short_stack: Stack
) -> None:
    async with api.tailed("word " * 100, rate=20) as (message_id, tail):
        await tail.read_n(3)
    assert (await api.cancel(message_id)).status_code == 202
    text = visible_text(await api.log(message_id))
    await expired(api, module_short_stack, message_id)
    assert (await api.cancel(message_id)).status_code == 202
    frames = await api.log(message_id)
    assert visible_text(frames) == text
    assert frames[-1].data == {"finish_reason": "cancelled", "text_chars": len(text)}


async def test_the_python_client_reads_it_from_anywhere(
    api: Caller, module_short_stack: Stack
) -> None:
    message_id = await api.accepted(TEXT)
    await expired(api, module_short_stack, message_id)
    async with Client(module_short_stack.url) as client:
        for after in (None, EventId(1, 2), EventId(7, 7)):
            async with client.tail(message_id, after=after) as tail:
                said = "".join([str(e.data["text"]) async for e in tail if e.name == "text"])
            assert said == TEXT


async def test_the_same_key_gives_the_same_stream_again(
    api: Caller, module_short_stack: Stack
) -> None:
    key = {"Idempotency-Key": "archived"}
    message_id = await api.accepted(TEXT, headers=key)
    await expired(api, module_short_stack, message_id)
    body = b'{"model": "demo/echo?rate=0", "input": "na\\u00efve \\ud83d\\ude00 words"}'
    headers = key | {"Content-Type": "application/json", "Accept": "text/event-stream"}
    url = f"{module_short_stack.url}/api/messages"
    async with sse_request("POST", url, headers=headers, body=body) as stream:
        assert stream.status == 200
        assert stream.headers["location"] == f"/api/messages/{message_id}"
        assert visible_text(await stream.read_until_end()) == TEXT


async def test_its_conversation_goes_on_and_shows_it(
    api: Caller, module_short_stack: Stack
) -> None:
    body = (await api.post(TEXT)).json()
    await expired(api, module_short_stack, body["message_id"])
    second = await api.accepted("next", conversation_id=body["conversation_id"])
    address = f"/api/conversations/{body['conversation_id']}"
    found = (await api.http.get(address)).json()["messages"]
    assert [message["role"] for message in found] == ["user", "assistant"] * 2
    assert (found[1]["text"], found[3]["id"]) == (TEXT, second)
    await expired(api, module_short_stack, second)
    assert (await api.http.delete(address)).status_code == 204
    for message_id in (body["message_id"], second):
        assert_problem(await api.http.get(api.events(message_id)), 404)

"""Answers to tool calls, as far as the API itself is concerned."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable
from typing import Any, cast

import httpx
import pytest

from rejoin.api import accept
from rejoin.api.app import Application
from rejoin.api.context import Context
from rejoin.api.offer import Offer
from rejoin.shared import keys, queue, record, waiting
from rejoin.shared.asks import Answer, Kind
from rejoin.shared.errors import LogUnavailable
from rejoin.shared.request import StoredRequest, StoredTurn
from rejoin.shared.tool_events import Needs
from tests.support.caller import UNKNOWN_ID, assert_names, assert_problem
from tests.support.waits import FAR, ask, passed

OFFER = Offer("local", StoredRequest("demo/echo", [StoredTurn("user", "x")]), None, "", False)
CALL = "call_1"
YES: dict[str, Any] = {"approve": True}


@pytest.fixture
async def message_id(context: Context) -> str:
    """A message that waits, without a worker: CALL for consent."""
    return await parked(context, CALL)


async def parked(context: Context, *calls: str, needs: Needs = Needs.APPROVAL) -> str:
    redis = context.redis
    message_id = (await accept.accept(context, OFFER)).message_id
    await queue.lease(redis, token="job", lease_seconds=5, most=1, take_over=True)
    await record.claim(redis, message_id, token="t", worker_id="w", life_seconds=60)
    for call in calls:
        await ask(redis, message_id, "t", call, needs=needs)
    await waiting.park(redis, message_id, token="t", call_ids=calls)
    await queue.release(redis, message_id, "job", due_ms=FAR)
    return message_id


@pytest.fixture
async def client(context: Context) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(Application(context))
    async with httpx.AsyncClient(transport=transport, base_url="http://api") as made:
        yield made


async def say(
    client: httpx.AsyncClient, message_id: str, body: object, *, call: str = CALL
) -> httpx.Response:
    return await client.post(f"/api/messages/{message_id}/tools/{call}", json=body)


async def test_an_answer_lets_the_message_go_on(
    context: Context, client: httpx.AsyncClient, message_id: str
) -> None:
    await context.redis.delete(keys.WAKE)
    answered = await say(client, message_id, YES)
    assert answered.status_code == 202
    assert answered.json() == {"message_id": message_id, "tool_call_id": CALL}
    assert await queue.is_due(context.redis, message_id)
    assert await cast(Awaitable[int], context.redis.llen(keys.WAKE)) == 1
    given = await waiting.answers(context.redis, message_id)
    assert given == {CALL: Answer(Kind.APPROVE, True)}


async def test_an_answer_notes_that_it_will_wake_the_message_first(
    context: Context,
    client: httpx.AsyncClient,
    message_id: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def dies(*_: object) -> bool:
        raise LogUnavailable("gone")

    with monkeypatch.context() as patched:
        patched.setattr(queue, "wake", dies)
        assert (await say(client, message_id, YES)).status_code == 503
    assert await context.redis.zrange(keys.WAKING, 0, -1) == [message_id.encode()]
    assert (await say(client, message_id, YES)).status_code == 202
    assert await context.redis.zcard(keys.WAKING) == 0


async def test_it_goes_on_with_the_last_answer_and_not_before(
    context: Context, client: httpx.AsyncClient
) -> None:
    message_id = await parked(context, "a", "b")
    assert (await say(client, message_id, YES, call="b")).status_code == 202
    assert not await queue.is_due(context.redis, message_id)
    assert (await say(client, message_id, {"approve": False}, call="a")).status_code == 202
    assert await queue.is_due(context.redis, message_id)


async def test_a_repeat_wakes_again_for_the_first_process_may_have_died(
    context: Context, client: httpx.AsyncClient, message_id: str
) -> None:
    said = Answer(Kind.APPROVE, True)
    await waiting.answer(context.redis, message_id, CALL, said, life_seconds=60)
    assert not await queue.is_due(context.redis, message_id)
    assert (await say(client, message_id, YES)).status_code == 202
    assert await queue.is_due(context.redis, message_id)


async def test_the_same_again_is_taken_and_another_is_a_conflict(
    client: httpx.AsyncClient, message_id: str
) -> None:
    for _ in range(3):
        assert (await say(client, message_id, YES)).status_code == 202
    assert_problem(await say(client, message_id, {"approve": False}), 409)
    assert (await say(client, message_id, YES)).status_code == 202


async def test_of_many_at_once_one_kind_is_taken(
    context: Context, client: httpx.AsyncClient, message_id: str
) -> None:
    answers = await asyncio.gather(
        *(say(client, message_id, {"approve": bool(n % 2)}) for n in range(10))
    )
    statuses = [answer.status_code for answer in answers]
    assert {*statuses} == {202, 409}
    assert {*statuses[::2]} != {*statuses[1::2]}
    assert len({*statuses[::2]}) == len({*statuses[1::2]}) == 1


@pytest.mark.parametrize("result", [None, False, 0, "", [], {}, [{"a": [None, 1.5]}], "ö 😀"])
async def test_a_client_sends_any_json_as_result(
    context: Context, client: httpx.AsyncClient, result: object
) -> None:
    message_id = await parked(context, CALL, needs=Needs.RESULT)
    assert (await say(client, message_id, {"result": result})).status_code == 202
    (given,) = (await waiting.answers(context.redis, message_id)).values()
    assert given == Answer(Kind.RESULT, result)
    assert_problem(await say(client, message_id, {"result": [result]}), 409)
    assert_problem(await say(client, message_id, {"error": "no"}), 409)


async def test_a_client_sends_why_its_tool_failed(
    context: Context, client: httpx.AsyncClient
) -> None:
    message_id = await parked(context, CALL, needs=Needs.RESULT)
    assert (await say(client, message_id, {"error": "no such file"})).status_code == 202
    (given,) = (await waiting.answers(context.redis, message_id)).values()
    assert given == Answer(Kind.ERROR, "no such file")


@pytest.mark.parametrize(
    ("needs", "body", "field"),
    [
        (Needs.RESULT, YES, "approve"),
        (Needs.APPROVAL, {"result": True}, "result"),
        (Needs.APPROVAL, {"error": "no"}, "error"),
    ],
)
async def test_an_answer_of_another_kind_is_named(
    context: Context, client: httpx.AsyncClient, needs: Needs, body: object, field: str
) -> None:
    message_id = await parked(context, CALL, needs=needs)
    assert_names(assert_problem(await say(client, message_id, body), 422), field)
    assert await waiting.answers(context.redis, message_id) == {}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "approve"),
        ({"approve": True, "result": 1}, "result"),
        ({"result": 1, "error": "x"}, "error"),
        ({"approve": True, "why": "x"}, "why"),
        ({"timeout": True}, "timeout"),
        ({"approve": None}, "approve"),
        ({"approve": 1}, "approve"),
        ({"approve": "true"}, "approve"),
        ({"error": ""}, "error"),
        ({"error": " "}, "error"),
        ({"error": None}, "error"),
        ({"error": {"a": 1}}, "error"),
    ],
)
async def test_a_wrong_body_names_its_field_and_answers_nothing(
    context: Context, client: httpx.AsyncClient, message_id: str, body: object, field: str
) -> None:
    assert_names(assert_problem(await say(client, message_id, body), 422), field)
    assert await waiting.answers(context.redis, message_id) == {}


@pytest.mark.parametrize(
    ("content", "media_type", "status"),
    [
        (b"{", "application/json", 400),
        (b"", "application/json", 400),
        (b"[true]", "application/json", 422),
        (b'{"approve": NaN}', "application/json", 400),
        (b'{"approve": true}', "text/plain", 415),
        (b'{"result": "' + b"x" * 2**20 + b'"}', "application/json", 413),
        (b'{"result": ' + b"[" * 900 + b"]" * 900 + b"}", "application/json", 422),
        (b'{"result": ' + b"[" * 90_000 + b"]" * 90_000 + b"}", "application/json", 400),
        (b'{"result": "\\ud800"}', "application/json", 422),
    ],
)
async def test_what_is_no_json_object_is_refused(
    client: httpx.AsyncClient, message_id: str, content: bytes, media_type: str, status: int
) -> None:
    path = f"/api/messages/{message_id}/tools/{CALL}"
    headers = {"content-type": media_type}
    assert_problem(await client.post(path, content=content, headers=headers), status)


@pytest.mark.parametrize("call", ["call_2", "call_1%20", "%2e%2e", "x" * 3000, "a%2Fb", "%00"])
async def test_a_call_that_the_message_has_not_is_404(
    client: httpx.AsyncClient, message_id: str, call: str
) -> None:
    assert_problem(await say(client, message_id, YES, call=call), 404)


@pytest.mark.parametrize("call", ["toolu_0.1:a-b", "a b", "ö%", "*[x]"])
async def test_the_address_may_escape_what_the_id_holds(
    context: Context, client: httpx.AsyncClient, call: str
) -> None:
    message_id = await parked(context, call)
    escaped = "".join(f"%{byte:02X}" for byte in call.encode())
    answered = await say(client, message_id, YES, call=escaped)
    assert answered.status_code == 202
    assert answered.json()["tool_call_id"] == call


async def test_an_unknown_message_and_anothers_are_404(
    context: Context, client: httpx.AsyncClient, message_id: str
) -> None:
    for unknown in (UNKNOWN_ID, "nonsense"):
        assert_problem(await say(client, unknown, YES), 404)
    await cast(
        Awaitable[int], context.redis.hset(keys.record(message_id), "owner", "somebody else")
    )
    assert_problem(await say(client, message_id, YES), 404)
    assert await waiting.answers(context.redis, message_id) == {}


@pytest.mark.parametrize("said_before", [False, True])
@pytest.mark.parametrize("what", ["deadline", "cancel", "after_step", "end"])
async def test_too_late_is_a_conflict_for_any_answer(
    context: Context, client: httpx.AsyncClient, message_id: str, what: str, said_before: bool
) -> None:
    if said_before:
        await say(client, message_id, YES)
    if what == "deadline":
        await passed(context.redis, message_id, CALL)
    elif what == "end":
        await client.post(f"/api/messages/{message_id}/cancel")
    else:
        await record.cancel(context.redis, message_id, after_step=what == "after_step")
    assert_problem(await say(client, message_id, YES), 409)
    assert_problem(await say(client, message_id, YES, call="other"), 404)


async def test_while_redis_is_away_it_asks_to_try_again(away: httpx.AsyncClient) -> None:
    refused = await say(away, UNKNOWN_ID, YES)
    assert_problem(refused, 503)
    assert "retry-after" in refused.headers


async def test_an_answer_of_a_megabyte_is_kept(context: Context, client: httpx.AsyncClient) -> None:
    message_id = await parked(context, CALL, needs=Needs.RESULT)
    result = "x" * 1_000_000
    assert len(json.dumps({"result": result})) < context.settings.max_body_bytes
    assert (await say(client, message_id, {"result": result})).status_code == 202
    (given,) = (await waiting.answers(context.redis, message_id)).values()
    assert given.value == result

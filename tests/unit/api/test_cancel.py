"""A cancel, as far as the API itself ends the message."""

import asyncio
from typing import Any

import httpx
import pytest

from rejoin.api import accept
from rejoin.api.app import Application
from rejoin.api.cancelling import ENDER
from rejoin.api.context import Context
from rejoin.api.offer import Offer
from rejoin.shared import keys, log, queue, record, waiting
from rejoin.shared.request import StoredRequest, StoredTurn
from rejoin.shared.waiting import Parked
from tests.support.waits import FAR, ask

OFFER = Offer("local", StoredRequest("demo/echo", [StoredTurn("user", "x")]), None, "", False)


@pytest.fixture
async def message_id(context: Context) -> str:
    return (await accept.accept(context, OFFER)).message_id


async def cancelled(context: Context, message_id: str, **sent: Any) -> httpx.Response:
    transport = httpx.ASGITransport(Application(context))
    async with httpx.AsyncClient(transport=transport, base_url="http://api") as client:
        return await client.post(f"/api/messages/{message_id}/cancel", **sent)


async def events(context: Context, message_id: str) -> list[str]:
    return [frame.name for frame in await log.read_all(context.redis, message_id)]


async def claim(context: Context, message_id: str, worker_id: str) -> None:
    await record.claim(context.redis, message_id, token="t", worker_id=worker_id, life_seconds=60)


async def test_a_queued_message_ends_and_leaves_queue_and_index(
    context: Context, message_id: str
) -> None:
    answer = await cancelled(context, message_id)
    assert (answer.status_code, answer.json()["status"]) == (202, "cancelled")
    assert await events(context, message_id) == ["start", "usage", "done"]
    assert await context.redis.zcard(keys.QUEUE) == 0
    assert await context.redis.zcard(keys.OPEN) == 0


async def test_cancels_at_once_write_one_end_and_no_reset(
    context: Context, message_id: str
) -> None:
    answers = await asyncio.gather(*(cancelled(context, message_id) for _ in range(10)))
    assert {answer.status_code for answer in answers} == {202}
    assert await events(context, message_id) == ["start", "usage", "done"]


async def test_a_running_message_is_left_to_its_worker(context: Context, message_id: str) -> None:
    await queue.lease(context.redis, token="t", lease_seconds=5, most=1, take_over=True)
    await claim(context, message_id, "a worker")
    answer = await cancelled(context, message_id)
    assert (answer.status_code, answer.json()["status"]) == (202, "streaming")
    assert await events(context, message_id) == []
    assert await record.cancelled_of(context.redis, [message_id]) == [message_id]


@pytest.mark.parametrize("handed_over", [True, False], ids=["handed over", "lease ended"])
async def test_a_message_between_two_workers_ends_without_waiting_for_the_next(
    context: Context, message_id: str, *, handed_over: bool
) -> None:
    lease_seconds = 5 if handed_over else 0
    await queue.lease(context.redis, token="t", lease_seconds=lease_seconds, most=1, take_over=True)
    await claim(context, message_id, "a worker")
    if handed_over:
        assert await record.hand_over(context.redis, message_id, "t")
        assert await queue.release(context.redis, message_id, "t")
    answer = await cancelled(context, message_id)
    assert (answer.status_code, answer.json()["status"]) == (202, "cancelled")
    assert (await events(context, message_id))[-1] == "done"


async def test_a_message_that_an_api_could_not_end_is_ended_by_the_next_cancel(
    context: Context, message_id: str
) -> None:
    await claim(context, message_id, ENDER)
    assert (await cancelled(context, message_id)).json()["status"] == "cancelled"
    assert (await events(context, message_id))[-1] == "done"


@pytest.mark.parametrize(
    ("body", "loc"),
    [({"mode": "now"}, ["mode"]), ({"mode": None}, ["mode"]), ({"a": 1}, ["a"])],
)
async def test_what_the_body_may_not_hold_is_named_and_cancels_nothing(
    context: Context, message_id: str, body: dict[str, Any], loc: list[str]
) -> None:
    answer = await cancelled(context, message_id, json=body)
    assert answer.status_code == 422
    assert [error["loc"] for error in answer.json()["errors"]] == [loc]
    assert await record.cancelled_of(context.redis, [message_id]) == []


async def test_after_the_step_a_queued_message_ends_at_once(
    context: Context, message_id: str
) -> None:
    answer = await cancelled(context, message_id, json={"mode": "after_step"})
    assert (answer.status_code, answer.json()["status"]) == (202, "cancelled")


async def test_after_the_step_a_message_between_two_workers_is_left_its_step(
    context: Context, message_id: str
) -> None:
    await queue.lease(context.redis, token="t", lease_seconds=0, most=1, take_over=True)
    await claim(context, message_id, "a worker")
    for _ in range(2):
        answer = await cancelled(context, message_id, json={"mode": "after_step"})
        assert (answer.status_code, answer.json()["status"]) == (202, "streaming")
    assert await record.cancelled_of(context.redis, [message_id]) == []
    assert (await cancelled(context, message_id)).json()["status"] == "cancelled"


@pytest.mark.parametrize("sent", [{}, {"json": {"mode": "after_step"}}], ids=["now", "after step"])
@pytest.mark.parametrize("held", [False, True], ids=["given back", "about to be given back"])
async def test_a_message_that_waits_ends_at_once_and_leaves_nothing(
    context: Context, message_id: str, sent: dict[str, Any], *, held: bool
) -> None:
    redis = context.redis
    await queue.lease(redis, token="t", lease_seconds=5, most=1, take_over=True)
    await claim(context, message_id, "a worker")
    await ask(redis, message_id, "t", "x")
    assert await waiting.park(redis, message_id, token="t", call_ids=["x"]) is Parked.PARKED
    if not held:
        await queue.release(redis, message_id, "t", due_ms=FAR)
    answer = await cancelled(context, message_id, **sent)
    assert (answer.status_code, answer.json()["status"]) == (202, "cancelled")
    assert (await events(context, message_id))[-2:] == ["usage", "done"]
    if held:
        await queue.release(redis, message_id, "t", due_ms=FAR)
        assert await queue.is_due(redis, message_id), "nobody sees to its job"
    else:
        assert await redis.exists(keys.QUEUE, keys.OWNERS, keys.OPEN) == 0
    assert (await cancelled(context, message_id, **sent)).status_code == 202

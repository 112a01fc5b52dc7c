"""A conversation with more than one message: who runs, who waits, who is refused."""

import asyncio
from typing import Any

import pytest

from tests.support.caller import UNKNOWN_ID, Caller, assert_names, assert_problem, visible_text
from tests.support.processes import Stack
from tests.support.sse_reader import open_tail

LONG = "a long answer that somebody has to stop " * 20
EVENT_STREAM = {"Accept": "text/event-stream"}


async def begun(api: Caller, text: str = "first", *, rate: float = 0) -> tuple[str, str]:
    """POST the first message of a conversation: its id, and the conversation's."""
    body = (await api.post(text, rate=rate)).json()
    return body["message_id"], body["conversation_id"]


async def post_in(api: Caller, conversation_id: str, text: str = "next", **fields: Any) -> str:
    response = await api.post(text, conversation_id=conversation_id, **fields)
    assert response.status_code == 202, response.text
    assert response.json()["conversation_id"] == conversation_id
    message_id: str = response.json()["message_id"]
    return message_id


async def ended(api: Caller, message_id: str) -> dict[str, Any]:
    seen = await api.snapshot(message_id, wait=15)
    assert seen["status"] in ("done", "failed", "cancelled")
    return seen


async def running(api: Caller, *, text: str = LONG) -> tuple[str, str]:
    """A message that has written some of its text, and its conversation."""
    message_id, conversation_id = await begun(api, text, rate=20)
    async with open_tail(api.events(message_id)) as tail:
        await tail.read_n(3)
    return message_id, conversation_id


async def test_a_message_in_a_known_conversation_belongs_to_it(api: Caller) -> None:
    first, conversation_id = await begun(api)
    await ended(api, first)
    second = await post_in(api, conversation_id)
    seen = await ended(api, second)
    assert (seen["conversation_id"], seen["status"]) == (conversation_id, "done")
    assert (await api.log(second))[0].data["conversation_id"] == conversation_id


async def test_one_that_is_first_waits_for_nothing(idle_api: Caller) -> None:
    response = await idle_api.post()
    assert "waiting_for" not in response.json()
    seen = await idle_api.snapshot(response.json()["message_id"])
    assert (seen["status"], seen["waiting_for"], seen["position"]) == ("queued", None, 0)


async def test_one_behind_another_says_what_it_waits_for(idle_api: Caller) -> None:
    first, conversation_id = await begun(idle_api)
    waiting_for = {"message_id": first, "status": "queued"}
    for position in (1, 2):
        response = await idle_api.post(conversation_id=conversation_id)
        assert response.json()["waiting_for"] == waiting_for
        assert response.json()["status"] == "queued"
        seen = await idle_api.snapshot(response.json()["message_id"])
        assert (seen["status"], seen["waiting_for"]) == ("queued", waiting_for)
        assert seen["position"] == position


async def test_one_behind_a_running_one_starts_when_that_has_ended(api: Caller) -> None:
    first, conversation_id = await running(api, text="one two three four five six seven eight")
    response = await api.post("next", conversation_id=conversation_id)
    assert response.json()["waiting_for"] == {"message_id": first, "status": "streaming"}
    second = response.json()["message_id"]
    after = await ended(api, second)
    before = await api.snapshot(first)
    assert (before["status"], after["status"], after["text"]) == ("done", "done", "next")
    assert before["finished_at"] <= after["started_at"]
    assert (after["waiting_for"], after["position"]) == (None, None)


async def test_a_busy_conversation_may_be_refused_naming_what_runs(
    idle_api: Caller, shared_idle_stack: Stack
) -> None:
    first, conversation_id = await begun(idle_api)
    await post_in(idle_api, conversation_id)
    with shared_idle_stack.redis.client() as client:
        before = (client.zcard("rejoin:open"), client.zcard("rejoin:queue"))
    for headers in ({}, EVENT_STREAM):
        refused = await idle_api.post(
            conversation_id=conversation_id, if_busy="reject", headers=headers
        )
        assert assert_problem(refused, 409)["active_message_id"] == first
    with shared_idle_stack.redis.client() as client:
        assert (client.zcard("rejoin:open"), client.zcard("rejoin:queue")) == before


async def test_a_conversation_is_free_for_whoever_has_seen_the_end(api: Caller) -> None:
    message_id, conversation_id = await begun(api)
    for _ in range(20):
        async with open_tail(api.events(message_id)) as tail:
            await tail.read_until_end()
        message_id = await post_in(api, conversation_id, if_busy="reject")
    assert (await ended(api, message_id))["status"] == "done"


async def test_an_interrupt_stops_what_runs_keeps_its_text_and_comes_next(api: Caller) -> None:
    first, conversation_id = await running(api)
    waits = await post_in(api, conversation_id, "patient")
    urgent = await post_in(api, conversation_id, "urgent", if_busy="interrupt")
    cancelled, came_next, came_last = [await ended(api, m) for m in (first, urgent, waits)]
    assert (cancelled["status"], came_next["status"], came_last["status"]) == (
        "cancelled", "done", "done",
    )  # fmt: skip
    assert cancelled["text"]
    assert LONG.startswith(cancelled["text"])
    assert (came_next["text"], came_last["text"]) == ("urgent", "patient")
    assert cancelled["finished_at"] <= came_next["started_at"]
    assert came_next["finished_at"] <= came_last["started_at"]


async def test_an_interrupt_of_one_that_is_still_queued_ends_it(idle_api: Caller) -> None:
    first, conversation_id = await begun(idle_api)
    waits = await post_in(idle_api, conversation_id)
    response = await idle_api.post(conversation_id=conversation_id, if_busy="interrupt")
    assert response.status_code == 202
    assert "waiting_for" not in response.json()
    assert (await idle_api.snapshot(first))["status"] == "cancelled"
    seen = await idle_api.snapshot(waits)
    assert seen["waiting_for"]["message_id"] == response.json()["message_id"]


async def test_an_interrupt_of_nothing_runs_at_once(api: Caller) -> None:
    first, conversation_id = await begun(api)
    await ended(api, first)
    second = await post_in(api, conversation_id, if_busy="interrupt")
    assert (await ended(api, second))["status"] == "done"
    assert (await api.snapshot(first))["status"] == "done"


async def test_a_cancel_of_one_that_waits_ends_it_at_once_and_no_other(api: Caller) -> None:
    first, conversation_id = await running(api)
    second, third = [await post_in(api, conversation_id) for _ in range(2)]
    response = await api.cancel(second)
    assert (response.status_code, response.json()["status"]) == (202, "cancelled")
    assert [f.event for f in await api.log(second)] == ["start", "usage", "done"]
    assert (await api.snapshot(first))["status"] == "streaming"
    seen = await api.snapshot(third)
    assert (seen["status"], seen["position"]) == ("queued", 1)
    await api.cancel(first)
    assert (await ended(api, third))["text"] == "next"


async def test_a_key_sent_again_gives_the_first_answer_though_the_turn_has_come(
    api: Caller,
) -> None:
    first, conversation_id = await running(api)
    key = {"Idempotency-Key": f"busy {first}"}
    told = await api.post("next", conversation_id=conversation_id, headers=key)
    assert told.json()["waiting_for"]["status"] == "streaming"
    await api.cancel(first)
    await ended(api, told.json()["message_id"])
    again = await api.post("next", conversation_id=conversation_id, headers=key)
    assert (again.status_code, again.json()) == (202, told.json())


async def test_a_key_that_was_refused_for_a_busy_conversation_may_be_used_again(
    api: Caller,
) -> None:
    first, conversation_id = await running(api)
    fields: dict[str, Any] = {"conversation_id": conversation_id, "if_busy": "reject"}
    key = {"Idempotency-Key": f"refused {first}"}
    assert_problem(await api.post("x", headers=key, **fields), 409)
    await api.cancel(first)
    await ended(api, first)
    response = await api.post("x", headers=key, **fields)
    assert response.status_code == 202
    assert (await ended(api, response.json()["message_id"]))["text"] == "x"


@pytest.mark.parametrize("unknown", [UNKNOWN_ID, "x", "", "é", "../../x", "a" * 5000])
async def test_an_unknown_conversation_is_404(idle_api: Caller, unknown: str) -> None:
    assert_problem(await idle_api.post(conversation_id=unknown), 404)
    assert_problem(await idle_api.post(conversation_id=unknown, parent_id=UNKNOWN_ID), 404)
    body = {"conversation_id": unknown, "regenerate": UNKNOWN_ID}
    assert_problem(await idle_api.http.post("/api/messages", json=body), 404)


async def test_a_message_is_no_conversation(idle_api: Caller) -> None:
    first, _ = await begun(idle_api)
    assert_problem(await idle_api.post(conversation_id=first), 404)


async def test_a_parent_is_a_message_of_the_conversation(idle_api: Caller) -> None:
    first, conversation_id = await begun(idle_api)
    foreign, _ = await begun(idle_api)
    for parent_id in (foreign, UNKNOWN_ID, conversation_id, "x", ""):
        refused = await idle_api.post(conversation_id=conversation_id, parent_id=parent_id)
        assert_names(assert_problem(refused, 422), "parent_id")
    await post_in(idle_api, conversation_id, parent_id=first)


async def test_a_message_cannot_be_its_own_ancestor(idle_api: Caller) -> None:
    """Ids are the server's, so nothing can name a message that comes later, or itself."""
    first, conversation_id = await begun(idle_api)
    second = await post_in(idle_api, conversation_id, parent_id=first)
    for name in ("id", "message_id"):
        field: dict[str, Any] = {name: first}
        refused = await idle_api.post(conversation_id=conversation_id, **field)
        assert_names(assert_problem(refused, 422), name)
    third = await post_in(idle_api, conversation_id, parent_id=second)
    assert len({first, second, third}) == 3


async def regenerate(api: Caller, message_id: str, **fields: Any) -> Any:
    return await api.http.post("/api/messages", json={"regenerate": message_id} | fields)


async def test_another_answer_is_of_the_same_conversation_and_model(api: Caller) -> None:
    first, conversation_id = await begun(api)
    await ended(api, first)
    for fields in ({}, {"conversation_id": conversation_id}):
        response = await regenerate(api, first, **fields)
        assert response.status_code == 202, response.text
        assert response.json()["conversation_id"] == conversation_id
        seen = await ended(api, response.json()["message_id"])
        assert (seen["status"], seen["model"]) == ("done", "demo/echo?rate=0")


async def test_another_answer_may_be_another_models_and_of_another_answer(api: Caller) -> None:
    first, _ = await begun(api)
    await ended(api, first)
    second = (await regenerate(api, first, model="demo/echo?rate=1000")).json()["message_id"]
    assert (await ended(api, second))["model"] == "demo/echo?rate=1000"
    third = (await regenerate(api, second)).json()["message_id"]
    assert (await ended(api, third))["model"] == "demo/echo?rate=1000"
    assert_problem(await regenerate(api, first, model="nobody/has-it"), 404)


async def test_what_to_answer_again_is_an_answer_of_the_conversation(idle_api: Caller) -> None:
    first, conversation_id = await begun(idle_api)
    foreign, _ = await begun(idle_api)
    for named in (UNKNOWN_ID, conversation_id, "x", ""):
        assert_names(assert_problem(await regenerate(idle_api, named), 422), "regenerate")
    refused = await regenerate(idle_api, foreign, conversation_id=conversation_id)
    assert_names(assert_problem(refused, 422), "regenerate")
    refused = await regenerate(idle_api, first, input="a")
    assert_names(assert_problem(refused, 422), "regenerate")


async def test_posts_at_once_wait_for_one_another(api: Caller) -> None:
    first, conversation_id = await running(api)
    texts = [f"answer {n}" for n in range(8)]
    ids = await asyncio.gather(*(post_in(api, conversation_id, text) for text in texts))
    await api.cancel(first)
    logs = [await api.log(message_id) for message_id in ids]
    assert [visible_text(frames) for frames in logs] == texts

"""Conversations: listed, read with what is queued, deleted for good."""

import asyncio
from typing import Any

import pytest

from tests.support.caller import UNKNOWN_ID, Caller, assert_names, assert_problem, until
from tests.support.processes import Stack
from tests.support.sse_reader import open_tail

LONG = "a long answer that somebody has to stop " * 20
EVENT_STREAM = {"Accept": "text/event-stream"}


async def begun(api: Caller, text: str = "first", **fields: Any) -> tuple[str, str]:
    """POST the first message of a conversation: the conversation's id, and its own."""
    body = (await api.post(text, **fields)).json()
    return body["conversation_id"], body["message_id"]


async def shown(api: Caller, conversation_id: str) -> dict[str, Any]:
    response = await api.http.get(f"/api/conversations/{conversation_id}")
    assert response.status_code == 200, response.text
    body: dict[str, Any] = response.json()
    return body


async def listed(api: Caller, **query: Any) -> dict[str, Any]:
    response = await api.http.get("/api/conversations", params=query)
    assert response.status_code == 200, response.text
    body: dict[str, Any] = response.json()
    return body


async def ended(api: Caller, message_id: str) -> None:
    assert (await api.snapshot(message_id, wait=15))["status"] in ("done", "failed", "cancelled")


async def test_a_conversation_is_there_with_its_202(idle_api: Caller) -> None:
    conversation_id, message_id = await begun(idle_api, "hello")
    found = await shown(idle_api, conversation_id)
    assert (found["id"], found["active_message_id"]) == (conversation_id, message_id)
    asked, answer = found["messages"]
    assert (asked["role"], asked["content"], asked["parent_id"]) == ("user", "hello", None)
    assert (answer["id"], answer["role"], answer["status"]) == (message_id, "assistant", "queued")
    assert answer["parent_id"] == asked["id"]
    assert conversation_id in [one["id"] for one in (await listed(idle_api))["conversations"]]


async def test_queued_messages_are_in_their_order_and_the_first_is_active(
    idle_api: Caller,
) -> None:
    conversation_id, first = await begun(idle_api, "1")
    others = [await idle_api.accepted(text, conversation_id=conversation_id) for text in "23"]
    ids = [first, *others]
    found = await shown(idle_api, conversation_id)
    assert [m["id"] for m in found["messages"] if m["role"] == "assistant"] == ids
    assert [m["content"] for m in found["messages"] if m["role"] == "user"] == ["1", "2", "3"]
    parents = [message["parent_id"] for message in found["messages"]]
    assert parents == [None, *(message["id"] for message in found["messages"][:-1])]
    assert found["active_message_id"] == first
    assert (await idle_api.cancel(first)).status_code == 202
    assert (await shown(idle_api, conversation_id))["active_message_id"] == ids[1]


async def test_a_turn_that_was_just_sent_may_be_branched_from(idle_api: Caller) -> None:
    conversation_id, first = await begun(idle_api, "hello")
    asked, _ = (await shown(idle_api, conversation_id))["messages"]
    branch = await idle_api.accepted(
        "and?", conversation_id=conversation_id, parent_id=asked["id"], if_busy="interrupt"
    )
    begins, more, answer = (await shown(idle_api, conversation_id))["messages"]
    assert (begins, more["parent_id"], answer["id"]) == (asked, asked["id"], branch)
    assert more["siblings"] == [first, more["id"]]


async def test_a_turn_of_another_conversation_that_was_just_sent_is_no_parent(
    idle_api: Caller,
) -> None:
    others, _ = await begun(idle_api, "hello")
    turn = (await shown(idle_api, others))["messages"][0]["id"]
    conversation_id, _ = await begun(idle_api, "hello")
    refused = await idle_api.post("x", conversation_id=conversation_id, parent_id=turn)
    assert_names(assert_problem(refused, 422), "parent_id")


async def test_a_message_is_whole_as_soon_as_it_has_ended(api: Caller) -> None:
    for _ in range(5):
        conversation_id, message_id = await begun(api, "naïve 😀", metadata={"a": "b"})
        async with open_tail(api.events(message_id)) as tail:
            await tail.read_until_end()
        found = await shown(api, conversation_id)
        asked, answer = found["messages"]
        assert (answer["status"], answer["text"], answer["content"]) == ("done", *["naïve 😀"] * 2)
        assert (answer["finish_reason"], answer["metadata"]) == ("stop", {"a": "b"})
        assert answer["usage"]["cost_usd"] == "0"
        assert found["active_message_id"] is None
        snapshot = await api.snapshot(message_id)
        assert {name: answer[name] for name in snapshot if name in answer} == {
            name: value for name, value in snapshot.items() if name in answer
        }
        assert (asked["text"], asked["status"], asked["model"]) == ("naïve 😀", "done", None)


async def test_a_reloaded_page_finds_the_stream_that_runs_and_its_text_so_far(api: Caller) -> None:
    conversation_id, message_id = await begun(api, LONG, rate=20)
    async with open_tail(api.events(message_id)) as tail:
        await tail.read_n(4)
    found = await shown(api, conversation_id)
    assert found["active_message_id"] == message_id
    answer = found["messages"][-1]
    assert answer["status"] == "streaming"
    assert answer["text"]
    assert LONG.startswith(answer["text"])
    async with open_tail(api.events(message_id), last_event_id=answer["last_event_id"]) as tail:
        (following,) = await tail.read_n(1)
    before, after = answer["last_event_id"].split("-")
    assert following.id == f"{before}-{int(after) + 1}"
    await api.cancel(message_id)


async def test_the_newest_path_is_shown_and_who_stands_beside_each(api: Caller) -> None:
    conversation_id, first = await begun(api, "one")
    await ended(api, first)
    second = await api.accepted("two", conversation_id=conversation_id)
    await ended(api, second)
    again = await api.accepted("one", regenerate=first, input=None)
    await ended(api, again)
    found = await shown(api, conversation_id)
    asked, answer = found["messages"]
    assert (answer["id"], answer["parent_id"]) == (again, asked["id"])
    assert (asked["siblings"], answer["siblings"]) == ([asked["id"]], [first, again])
    branch = await api.accepted("other", conversation_id=conversation_id, parent_id=first)
    await ended(api, branch)
    found = await shown(api, conversation_id)
    ids = [message["id"] for message in found["messages"]]
    assert (ids[0], ids[1], ids[3]) == (asked["id"], first, branch)
    assert len(ids) == 4
    two, other = found["messages"][2]["siblings"]
    assert (other, two == ids[2]) == (ids[2], False)


async def test_pages_join_to_the_list_the_last_changed_first(api: Caller) -> None:
    made = []
    for n in range(5):
        conversation_id, message_id = await begun(api, f"number {n}")
        await ended(api, message_id)
        made.append(conversation_id)
    message_id = await api.accepted("again", conversation_id=made[0])
    await ended(api, message_id)
    expected = [made[0], *reversed(made[1:])]
    for limit in (1, 2, 100):
        seen: list[str] = []
        cursor = None
        while len(seen) < 5:
            query = {"limit": limit} | ({"cursor": cursor} if cursor else {})
            page = await listed(api, **query)
            assert len(page["conversations"]) <= limit
            seen += [one["id"] for one in page["conversations"]]
            cursor = page["next_cursor"]
        assert seen[:5] == expected
    one = page["conversations"][0]
    assert set(one) == {"id", "created_at", "updated_at"}
    assert one["created_at"] < one["updated_at"]


@pytest.mark.parametrize("limit", ["0", "101", "-1", "1.5", "x", "", "٣"])
async def test_a_limit_out_of_its_bounds_is_422(api: Caller, limit: str) -> None:
    refused = await api.http.get("/api/conversations", params={"limit": limit})
    assert_names(assert_problem(refused, 422), "limit")


@pytest.mark.parametrize("cursor", ["", "x", "MS0x", "é", "18446744073709551616-1", "A" * 3000])
async def test_a_cursor_that_no_page_gave_is_422(api: Caller, cursor: str) -> None:
    refused = await api.http.get("/api/conversations", params={"cursor": cursor})
    assert_names(assert_problem(refused, 422), "cursor")


@pytest.mark.parametrize("conversation_id", [UNKNOWN_ID, "x", UNKNOWN_ID.upper()])
@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_an_unknown_conversation_is_404(
    api: Caller, method: str, conversation_id: str
) -> None:
    answer = await api.http.request(method, f"/api/conversations/{conversation_id}")
    assert_problem(answer, 404)


async def deleted(api: Caller, conversation_id: str) -> None:
    answer = await api.http.delete(f"/api/conversations/{conversation_id}")
    assert (answer.status_code, answer.content) == (204, b""), answer.text


async def assert_gone(api: Caller, conversation_id: str, *message_ids: str) -> None:
    assert_problem(await api.http.get(f"/api/conversations/{conversation_id}"), 404)
    assert conversation_id not in [one["id"] for one in (await listed(api))["conversations"]]
    for message_id in message_ids:
        for rest in ("", "/events"):
            assert_problem(await api.http.get(f"/api/messages/{message_id}{rest}"), 404)


async def test_a_deleted_conversation_and_its_messages_are_gone(api: Caller, stack: Stack) -> None:
    conversation_id, message_id = await begun(api)
    await ended(api, message_id)
    await deleted(api, conversation_id)
    await assert_gone(api, conversation_id, message_id)
    with stack.redis.client() as client:
        assert client.keys(f"*{message_id}*") == []
    await deleted(api, conversation_id)  # as often as one likes


async def test_no_post_brings_a_deleted_conversation_back(api: Caller) -> None:
    conversation_id, message_id = await begun(api)
    await ended(api, message_id)
    await deleted(api, conversation_id)
    branch: dict[str, Any] = {"parent_id": message_id}
    interrupting: dict[str, Any] = {"if_busy": "interrupt"}
    for fields in ({}, branch, interrupting):
        refused = await api.post(conversation_id=conversation_id, **fields)
        assert_problem(refused, 404)
    await assert_gone(api, conversation_id)


async def test_what_runs_and_what_waits_is_cancelled_with_its_conversation(
    api: Caller, stack: Stack
) -> None:
    conversation_id, running = await begun(api, LONG, rate=20)
    waiting = [await api.accepted(conversation_id=conversation_id) for _ in range(2)]
    ids = [running, *waiting]
    async with asyncio.TaskGroup() as group:
        tails = []
        for message_id in ids:
            opened = asyncio.Event()
            tails.append(group.create_task(read(api, message_id, opened)))
            await opened.wait()
        await deleted(api, conversation_id)
    for tail in tails:
        assert tail.result().data["finish_reason"] == "cancelled"
    await assert_gone(api, conversation_id, *ids)
    with stack.redis.client() as client:

        async def nothing_left() -> bool:
            names = ("rejoin:unsaved", "rejoin:open", "rejoin:queue")
            return not any(client.zscore(name, one) for name in names for one in ids)

        await until(nothing_left)
        for message_id in ids:
            assert client.keys(f"*{message_id}*") == []
    await assert_gone(api, conversation_id, *ids)


async def read(api: Caller, message_id: str, opened: asyncio.Event) -> Any:
    """Read to the end; `opened` once the tail stands."""
    async with open_tail(api.events(message_id)) as tail:
        # The second comment comes in a silence: the tail has read its log by then.
        await tail.until(lambda: len(tail.comments) > 1 or len(tail.frames) > 1)
        opened.set()
        return (await tail.read_until_end())[-1]


async def test_one_that_is_deleted_before_it_was_saved_stays_away(
    idle_api: Caller, shared_idle_stack: Stack
) -> None:
    conversation_id, message_id = await begun(idle_api)
    await deleted(idle_api, conversation_id)
    await assert_gone(idle_api, conversation_id, message_id)
    worker = shared_idle_stack.new_worker().start()
    try:
        with shared_idle_stack.redis.client() as client:

            async def saved() -> bool:
                return client.zscore("rejoin:unsaved", message_id) is None

            await until(saved)
        await assert_gone(idle_api, conversation_id, message_id)
    finally:
        worker.terminate()

"""Messages that Redis has forgotten, over HTTP, from either database."""

import json
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import httpx
import pytest

from rejoin.api import archive
from rejoin.shared.db import messages, tables
from rejoin.shared.db.engine import Database
from rejoin.shared.db.rows import Spent, StoredCall, StoredMessage
from rejoin.shared.db.saving import save
from rejoin.shared.errors import DatabaseUnavailable
from rejoin.shared.ids import EventId, new_message_id
from rejoin.shared.record import Status
from tests.database.app import LOCAL, calling
from tests.database.stored import answer, queued, turn
from tests.support.sse_reader import SseFrame, parse_block

TEXT = "naïve 😀\n text"
CALLS = (StoredCall("c1", 1, "look", {"a": [1]}, result={"b": None}),)
JSON = {"Accept": "application/json"}


@pytest.fixture
async def api(clean_redis_url: str, database: Database) -> AsyncIterator[httpx.AsyncClient]:
    async with calling(clean_redis_url, database) as client:
        yield client


@pytest.fixture
async def told(database: Database) -> StoredMessage:
    """An answer that is saved, and whose log ended with 2-9."""
    asked = turn(new_message_id(), owner=LOCAL)
    row = answer(
        asked.conversation_id,
        TEXT,
        owner=LOCAL,
        parent_id=asked.id,
        last_event_id=EventId(2, 9),
        finish_reason="stop",
        tool_calls=CALLS,
        usage=Spent(1, 2, 0, 0, Decimal("0.000120"), False),
    )
    await save(database, [asked, row])
    return row


def address(row: StoredMessage, rest: str = "") -> str:
    return f"/api/messages/{row.id}{rest}"


async def events(api: httpx.AsyncClient, row: StoredMessage, after: str = "") -> list[SseFrame]:
    headers = {"Last-Event-ID": after} if after else {}
    response = await api.get(address(row, "/events"), headers=headers)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "text/event-stream"
    assert response.content.startswith(b"retry: ")
    blocks = response.content.split(b"\n\n")[:-1]
    items = [item for block in blocks for item in parse_block(block + b"\n\n")]
    return [item for item in items if isinstance(item, SseFrame)]


async def status(api: httpx.AsyncClient, row: StoredMessage, after: str) -> int:
    answered = await api.get(address(row, "/events"), headers={"Last-Event-ID": after})
    return answered.status_code


async def test_the_whole_is_an_attempt_later_than_the_logs_last(
    api: httpx.AsyncClient, told: StoredMessage
) -> None:
    frames = await events(api, told)
    assert [frame.event for frame in frames] == [
        "start", "text", "tool_call", "tool_result", "usage", "done",
    ]  # fmt: skip
    assert [frame.id for frame in frames] == [f"3-{n}" for n in range(6)]
    assert frames[1].data == {"text": TEXT}
    assert frames[3].data == {"tool_call_id": "c1", "name": "look", "result": {"b": None}}
    assert frames[4].data["cost_usd"] == "0.00012"
    assert frames[5].data == {"finish_reason": "stop", "text_chars": len(TEXT)}


async def test_a_client_of_the_log_is_told_to_forget_and_gets_all(
    api: httpx.AsyncClient, told: StoredMessage
) -> None:
    whole = await events(api, told)
    for position in ("1-0", "2-8", "2-10", "3-6", "4-0", "0-0", "18446744073709551616-0"):
        reset, *rest = await events(api, told, position)
        assert (reset.event, reset.id, reset.data["after"]) == ("reset", None, None)
        assert rest == whole


async def test_a_position_within_it_gets_the_rest_and_an_end_gets_204(
    api: httpx.AsyncClient, told: StoredMessage
) -> None:
    whole = await events(api, told)
    for at, frame in enumerate(whole[:-1]):
        assert frame.id is not None
        assert await events(api, told, frame.id) == whole[at + 1 :]
    assert await status(api, told, "2-9") == 204
    assert await status(api, told, "3-5") == 204


@pytest.mark.parametrize("limit", [1, 2, 5, 6, 1000])
@pytest.mark.parametrize("position", ["", "1-3", "3-1"])
async def test_pages_of_any_size_join_to_the_stream(
    api: httpx.AsyncClient, told: StoredMessage, limit: int, position: str
) -> None:
    expected = [(f.id, f.event, f.data) for f in await events(api, told, position)]
    seen: list[tuple[str | None, str, Any]] = []
    after, ended = position, False
    while not ended:
        headers = JSON | ({"Last-Event-ID": after} if after else {})
        query = {"limit": limit, "wait": 1}
        page = (await api.get(address(told, "/events"), params=query, headers=headers)).json()
        seen += [(event["id"], event["event"], event["data"]) for event in page["events"]]
        after, ended = page["next"], page["ended"]
        assert after is not None, "a page that leads nowhere"
    assert seen == expected
    assert after == "3-5"


@pytest.mark.parametrize("position", ["2-9", "3-5"])
async def test_a_page_after_the_end_is_empty_and_ended(
    api: httpx.AsyncClient, told: StoredMessage, position: str
) -> None:
    headers = JSON | {"Last-Event-ID": position}
    page = await api.get(address(told, "/events"), headers=headers)
    assert page.json() == {"events": [], "next": position, "ended": True}


async def test_the_snapshot_is_the_messages_own(
    api: httpx.AsyncClient, told: StoredMessage
) -> None:
    seen = (await api.get(address(told), params={"wait": 10})).json()
    assert (seen["id"], seen["status"], seen["text"]) == (told.id, "done", TEXT)
    assert (seen["last_event_id"], seen["attempt"]) == ("2-9", 2)
    assert seen["usage"]["cost_usd"] == "0.00012"
    (call,) = seen["tool_calls"]
    assert (call["tool_call_id"], call["result"], call["error"]) == ("c1", {"b": None}, None)
    assert await status(api, told, seen["last_event_id"]) == 204


async def test_a_result_that_is_null_is_a_result(
    api: httpx.AsyncClient, database: Database
) -> None:
    calls = (StoredCall("c1", 1, "look", {}, ended=True), StoredCall("c2", 1, "look", {}))
    row = answer(new_message_id(), owner=LOCAL, tool_calls=calls)
    await save(database, [row])
    frames = [frame for frame in await events(api, row) if frame.event.startswith("tool_")]
    assert [frame.event for frame in frames] == ["tool_call", "tool_result", "tool_call"]
    assert frames[1].data == {"tool_call_id": "c1", "name": "look", "result": None}
    seen = (await api.get(address(row))).json()["tool_calls"]
    assert [(call["ended"], call["needs"], call["running"]) for call in seen] == [
        (True, None, False),
        (False, None, False),
    ]
    (loaded,) = await messages.path(database, row.id)
    assert loaded.tool_calls == calls


async def test_a_call_that_an_older_version_saved_has_ended_with_its_result(
    api: httpx.AsyncClient, told: StoredMessage, database: Database
) -> None:
    async with database.writing() as connection:
        await connection.execute(tables.tool_calls.update().values(ended=None))
    assert (await events(api, told))[3].event == "tool_result"
    (call,) = (await api.get(address(told))).json()["tool_calls"]
    assert call["ended"]


async def test_an_answer_to_a_call_of_one_that_has_ended_is_a_conflict(
    api: httpx.AsyncClient, told: StoredMessage, database: Database
) -> None:
    for body in ({"approve": True}, {"result": {"b": None}}):
        assert (await api.post(address(told, "/tools/c1"), json=body)).status_code == 409
        assert (await api.post(address(told, "/tools/c2"), json=body)).status_code == 404
    anothers = answer(new_message_id(), owner="ann", tool_calls=CALLS)
    await save(database, [anothers])
    refused = await api.post(address(anothers, "/tools/c1"), json={"approve": True})
    assert refused.status_code == 404


@pytest.mark.parametrize(
    ("ended", "code"), [(Status.DONE, 409), (Status.FAILED, 409), (Status.CANCELLED, 202)]
)
async def test_a_cancel_of_one_that_has_ended_says_how(
    api: httpx.AsyncClient, database: Database, ended: Status, code: int
) -> None:
    row = answer(new_message_id(), owner=LOCAL, status=ended)
    await save(database, [row])
    assert (await api.post(address(row, "/cancel"))).status_code == code


async def test_anothers_a_turn_and_an_unknown_one_answer_alike(
    api: httpx.AsyncClient, database: Database
) -> None:
    anothers = answer(new_message_id(), owner="ann")
    mine = turn(new_message_id(), owner=LOCAL)
    unknown = answer(new_message_id())
    await save(database, [anothers, mine])
    for method, rest in (("GET", ""), ("GET", "/events"), ("POST", "/cancel")):
        found = [await api.request(method, address(r, rest)) for r in (anothers, mine, unknown)]
        assert {(one.status_code, one.content) for one in found} == {(404, found[0].content)}
        pages = await api.get(address(anothers, "/events"), headers=JSON)
        assert pages.status_code == 404


async def test_one_that_redis_lost_before_its_end_has_failed(
    api: httpx.AsyncClient, database: Database
) -> None:
    row = queued(new_message_id(), owner=LOCAL)
    await save(database, [row])
    start, failed = await events(api, row)
    assert (start.event, failed.event, failed.data["code"]) == ("start", "failed", "internal")
    seen = (await api.get(address(row))).json()
    assert (seen["status"], seen["error"]["code"]) == ("failed", "internal")
    assert (await api.post(address(row, "/cancel"))).status_code == 409


async def test_while_the_database_is_away_nobody_is_told_that_there_is_nothing(
    clean_redis_url: str,
) -> None:
    away = Database("postgresql+asyncpg://nobody@127.0.0.1:1/none")
    row = answer(new_message_id())
    async with calling(clean_redis_url, away) as api:
        for method, rest in (("GET", ""), ("POST", "/cancel")):
            refused = await api.request(method, address(row, rest))
            assert (refused.status_code, "retry-after" in refused.headers) == (503, True)
        page = await api.get(address(row, "/events"), headers=JSON)
        assert (page.status_code, "retry-after" in page.headers) == (503, True)
        stream = await api.get(address(row, "/events"))
        assert stream.status_code == 200
        assert b"\nid:" not in stream.content
        assert b": \n\n" in stream.content
    await away.aclose()


async def test_a_stream_that_waits_for_the_database_answers_when_it_is_back(
    clean_redis_url: str, database: Database, told: StoredMessage, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = archive.load
    calls: list[object] = []

    async def away_once(*arguments: Any) -> StoredMessage:
        calls.append(arguments)
        if len(calls) < 3:
            raise DatabaseUnavailable("away")
        return await load(*arguments)

    monkeypatch.setattr(archive, "load", away_once)
    async with calling(clean_redis_url, database) as api:
        frames = await events(api, told, "3-3")
        assert [frame.id for frame in frames] == ["3-4", "3-5"]
        calls.clear()
        unknown = await api.get(f"/api/messages/{new_message_id()}/events")
    assert unknown.status_code == 200
    assert b"\nevent:" not in unknown.content


async def test_a_long_text_is_whole(api: httpx.AsyncClient, database: Database) -> None:
    row = answer(new_message_id(), "é" * 300_000, owner=LOCAL)
    await save(database, [row])
    frames = await events(api, row)
    assert json.dumps(frames[1].data) == json.dumps({"text": row.text})

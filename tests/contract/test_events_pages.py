"""GET /api/messages/{id}/events in JSON: the same log in pages, for who cannot stream."""

import asyncio
from typing import Any

import pytest

from tests.support.caller import Caller, Stopwatch, assert_problem


async def all_pages(api: Caller, message_id: str, **query: Any) -> list[dict[str, Any]]:
    """Follow `next` from the start to `ended`."""
    events: list[dict[str, Any]] = []
    position: str | None = None
    for _ in range(200):
        page = await api.page(message_id, position, **query)
        events += page["events"]
        if page["ended"]:
            return events
        position = page["next"]
    raise AssertionError("no page was the last one")


async def expected(api: Caller, message_id: str) -> list[dict[str, Any]]:
    frames = await api.log(message_id)
    return [{"id": frame.id, "event": frame.event, "data": frame.data} for frame in frames]


async def test_a_page_holds_the_streams_events(api: Caller) -> None:
    message_id = await api.accepted("é one\ntwo 😀")
    events = await expected(api, message_id)
    page = await api.page(message_id)
    assert page == {"events": events, "next": events[-1]["id"], "ended": True}


@pytest.mark.parametrize("limit", [1, 2, 3, 6, 7])
async def test_pages_of_any_size_join_to_the_whole_log(api: Caller, limit: int) -> None:
    message_id = await api.accepted("one two three")
    events = await expected(api, message_id)
    assert await all_pages(api, message_id, limit=limit) == events
    first = await api.page(message_id, limit=limit)
    assert first["events"] == events[:limit]
    assert first["next"] == events[:limit][-1]["id"]


async def test_ended_is_true_only_when_nothing_follows(api: Caller) -> None:
    message_id = await api.accepted("one two three")
    events = await expected(api, message_id)
    for limit in range(1, len(events)):
        assert (await api.page(message_id, limit=limit))["ended"] is False
    assert (await api.page(message_id, limit=len(events)))["ended"] is True


async def test_a_page_after_the_end_is_empty_and_ended_never_204(api: Caller) -> None:
    message_id = await api.accepted()
    end = (await expected(api, message_id))[-1]["id"]
    assert await api.page(message_id, end) == {"events": [], "next": end, "ended": True}
    assert await api.page(message_id, end, wait=5) == {"events": [], "next": end, "ended": True}


async def test_a_page_of_a_queued_message_is_empty(idle_api: Caller) -> None:
    message_id = await idle_api.accepted()
    assert await idle_api.page(message_id) == {"events": [], "next": None, "ended": False}
    assert await idle_api.page(message_id, wait=0.2) == {
        "events": [],
        "next": None,
        "ended": False,
    }


async def test_the_position_may_come_in_the_query(api: Caller) -> None:
    message_id = await api.accepted("one two three")
    events = await expected(api, message_id)
    page = await api.page(message_id, last_event_id="1-2")
    assert page["events"] == events[3:]


async def test_wait_answers_as_soon_as_something_is_new(idle_api: Caller) -> None:
    message_id = await idle_api.accepted()
    watch = Stopwatch()
    waiting = asyncio.create_task(idle_api.page(message_id, wait=12))
    assert (await idle_api.cancel(message_id)).status_code == 202
    page = await waiting
    assert page["events"]
    assert watch.seconds < 6


async def test_wait_does_not_hold_back_what_is_there(api: Caller) -> None:
    message_id = await api.accepted("slow " * 50, rate=5)
    watch = Stopwatch()
    page = await api.page(message_id, wait=12)
    assert page["events"][0]["event"] == "start"
    assert watch.seconds < 6
    await api.cancel(message_id)


async def test_a_running_message_is_followed_page_by_page(api: Caller) -> None:
    message_id = await api.accepted("by pages alone " * 5, rate=50)
    events = await all_pages(api, message_id, wait=10)
    assert events == await expected(api, message_id)


async def test_long_logs_come_in_pages_of_a_thousand_at_most(api: Caller) -> None:
    message_id = await api.accepted("w " * 1500)
    await api.snapshot(message_id, wait=10)
    thousand: dict[str, Any] = {"limit": 1000}
    for query in ({}, thousand):
        page = await api.page(message_id, **query)
        assert 0 < len(page["events"]) <= 1000
        assert page["ended"] is False
    assert await all_pages(api, message_id, limit=1000) == await expected(api, message_id)


@pytest.mark.parametrize("limit", [1, 2, 100])
async def test_an_unknown_position_is_reset_in_pages_too(api: Caller, limit: int) -> None:
    message_id = await api.accepted("one two three")
    page = await api.page(message_id, "5-5", limit=limit)
    reset = page["events"][0]
    assert reset["event"] == "reset"
    assert reset.get("id") is None
    assert (reset["data"]["after"], reset["data"]["reason"]) == (None, "position_unknown")
    events = page["events"][1:]
    for _ in range(50):
        if page["ended"]:
            break
        page = await api.page(message_id, page["next"], limit=limit)
        events += page["events"]
    assert events == await expected(api, message_id)


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=-1", "limit=x", "limit=1.5", "wait=x", "wait=-1", "wait=nan"]
)
async def test_wrong_queries_are_refused(api: Caller, query: str) -> None:
    message_id = await api.accepted()
    response = await api.http.get(
        f"/api/messages/{message_id}/events?{query}", headers={"Accept": "application/json"}
    )
    assert response.status_code in (400, 422)
    assert_problem(response, response.status_code)


@pytest.mark.parametrize("query", ["limit=1001", "limit=99999999999999999999", "wait=61"])
async def test_more_than_the_most_is_refused_or_cut_to_it(api: Caller, query: str) -> None:
    message_id = await api.accepted()
    await api.log(message_id)
    response = await api.http.get(
        f"/api/messages/{message_id}/events?{query}", headers={"Accept": "application/json"}
    )
    assert response.status_code in (200, 400, 422)

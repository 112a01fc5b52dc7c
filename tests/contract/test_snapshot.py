"""GET /api/messages/{id}: the message so far."""

import asyncio
from datetime import datetime

import pytest

from tests.support.caller import UNKNOWN_ID, Caller, Stopwatch, assert_problem, visible_text
from tests.support.sse_reader import open_tail

FIELDS = {
    "id",
    "conversation_id",
    "model",
    "status",
    "text",
    "reasoning",
    "tool_calls",
    "usage",
    "error",
    "attempt",
    "attempts",
    "last_event_id",
    "created_at",
    "started_at",
    "finished_at",
}


async def test_a_queued_message_has_nothing_yet(idle_api: Caller) -> None:
    accepted = (await idle_api.post("a")).json()
    seen = await idle_api.snapshot(accepted["message_id"])
    assert set(seen) >= FIELDS
    assert seen["id"] == accepted["message_id"]
    assert seen["conversation_id"] == accepted["conversation_id"]
    assert (seen["status"], seen["text"], seen["last_event_id"]) == ("queued", "", None)
    assert (seen["attempts"], seen["tool_calls"]) == ([], [])
    assert (seen["usage"], seen["error"]) == (None, None)
    assert (seen["started_at"], seen["finished_at"]) == (None, None)
    assert datetime.fromisoformat(seen["created_at"]).tzinfo is not None


async def test_a_finished_message_has_all(api: Caller) -> None:
    text = "whole é 😀\nanswer"
    message_id = await api.accepted(text)
    frames = await api.log(message_id)
    seen = await api.snapshot(message_id)
    assert set(seen) >= FIELDS
    assert (seen["status"], seen["text"], seen["error"]) == ("done", text, None)
    assert seen["model"] == frames[0].data["model"]
    assert seen["last_event_id"] == frames[-1].id
    assert seen["usage"] == frames[-2].data
    assert (seen["attempt"], len(seen["attempts"])) == (1, 1)
    assert seen["attempts"][0]["model"] == seen["model"]
    assert seen["attempts"][0]["worker"]
    times = [
        datetime.fromisoformat(seen[f"{name}_at"]) for name in ("created", "started", "finished")
    ]
    assert times == sorted(times)
    assert all(time.tzinfo is not None for time in times)


async def test_the_snapshot_is_done_once_a_tail_saw_the_end(api: Caller) -> None:
    for n in range(10):
        message_id = await api.accepted(f"n {n}")
        await api.log(message_id)
        seen = await api.snapshot(message_id)
        assert (seen["status"], seen["text"]) == ("done", f"n {n}")


async def test_tailing_from_any_snapshot_goes_on_without_a_gap(api: Caller) -> None:
    text = "snapshot and tail make the whole " * 4
    message_id = await api.accepted(text, rate=50)
    rest: list[asyncio.Task[str]] = []

    async def tail_from(position: str | None, so_far: str) -> str:
        async with open_tail(api.events(message_id), last_event_id=position) as tail:
            frames = await tail.read_until_end()
        return so_far + visible_text(frames)

    while (seen := await api.snapshot(message_id))["status"] != "done":
        assert text.startswith(seen["text"])
        if len(rest) < 15:
            rest.append(asyncio.create_task(tail_from(seen["last_event_id"], seen["text"])))
        await asyncio.sleep(0.05)
    assert len(rest) > 5
    assert set(await asyncio.gather(*rest)) == {text}


async def test_a_running_message_is_streaming_with_its_text_so_far(api: Caller) -> None:
    async with api.tailed("so far and further " * 20, rate=20) as (message_id, tail):
        frames = await tail.read_n(4)
    seen = await api.snapshot(message_id)
    assert (seen["status"], seen["finished_at"], seen["usage"]) == ("streaming", None, None)
    assert seen["text"].startswith(visible_text(frames))
    assert seen["started_at"] is not None
    await api.cancel(message_id)


async def test_a_cancelled_message_says_so(api: Caller) -> None:
    async with api.tailed("stop me " * 50, rate=20) as (message_id, tail):
        await tail.read_n(3)
        await api.cancel(message_id)
        frames = await tail.read_until_end()
    seen = await api.snapshot(message_id)
    assert (seen["status"], seen["text"]) == ("cancelled", visible_text(frames))
    assert seen["finished_at"] is not None


async def test_wait_answers_when_the_message_has_ended(api: Caller) -> None:
    message_id = await api.accepted("wait for me " * 3, rate=20)
    watch = Stopwatch()
    seen = await api.snapshot(message_id, wait=12)
    assert seen["status"] == "done"
    assert watch.seconds < 6


async def test_wait_answers_when_the_time_is_up(idle_api: Caller) -> None:
    message_id = await idle_api.accepted()
    watch = Stopwatch()
    assert (await idle_api.snapshot(message_id, wait=0.3))["status"] == "queued"
    assert 0.2 < watch.seconds < 5


async def test_wait_for_an_ended_message_answers_at_once(api: Caller) -> None:
    message_id = await api.accepted()
    await api.log(message_id)
    watch = Stopwatch()
    assert (await api.snapshot(message_id, wait=12))["status"] == "done"
    assert watch.seconds < 5


@pytest.mark.parametrize("wait", ["x", "-1", "nan"])
async def test_a_wait_that_is_no_time_is_refused(api: Caller, wait: str) -> None:
    message_id = await api.accepted()
    response = await api.http.get(f"/api/messages/{message_id}", params={"wait": wait})
    assert response.status_code in (400, 422)
    assert_problem(response, response.status_code)


@pytest.mark.parametrize("wait", ["61", "1e999", "inf"])
async def test_a_wait_beyond_the_most_is_refused_or_cut_to_it(api: Caller, wait: str) -> None:
    message_id = await api.accepted()
    await api.log(message_id)
    response = await api.http.get(f"/api/messages/{message_id}", params={"wait": wait})
    assert response.status_code in (200, 400, 422)


@pytest.mark.parametrize("message_id", [UNKNOWN_ID, "abc", "*", "%00", "%ff", "{x}", "a" * 3000])
async def test_an_unknown_message_is_404(api: Caller, message_id: str) -> None:
    assert_problem(await api.http.get(f"/api/messages/{message_id}"), 404)
    assert_problem(await api.http.get(f"/api/messages/{message_id}?wait=10"), 404)

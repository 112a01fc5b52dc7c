"""The message so far: record and log in one look."""

from typing import Any

import httpx
import pytest
from redis.asyncio import Redis

from rejoin.api import accept
from rejoin.api.app import Application
from rejoin.api.context import Context
from rejoin.api.endpoints import snapshot as endpoint
from rejoin.api.offer import Offer
from rejoin.shared import log, record, waiting
from rejoin.shared.events import (
    Done,
    Event,
    Failed,
    FailureCode,
    FinishReason,
    Step,
    Text,
    Usage,
)
from rejoin.shared.opening import frames, opening
from rejoin.shared.record import Claim
from rejoin.shared.request import StoredRequest, StoredTurn
from rejoin.shared.tool_events import (
    Needs,
    ToolCall,
    ToolError,
    ToolResult,
    ToolStart,
    ToolWaiting,
)
from tests.support.waits import ask

OFFER = Offer("local", StoredRequest("demo/echo", [StoredTurn("user", "x")]), None, "", False)


class Run:
    """A message and a worker's hand in its log."""

    def __init__(self, redis: Redis, message_id: str) -> None:
        self.redis = redis
        self.message_id = message_id
        self.claim: Claim | None = None
        self.sequence = 0

    async def begin(self, reason: str = "") -> None:
        """Claim the message and write what opens the attempt."""
        message_id = self.message_id
        self.claim = await record.claim(
            self.redis, message_id, token=f"t{reason}", worker_id="w", life_seconds=60
        )
        found = await record.load(self.redis, message_id)
        assert found is not None
        newest = (await log.look(self.redis, message_id, None)).newest
        opened = opening(
            found, self.claim.attempt, worker_id="w", newest=newest, after=None, reason=reason
        )
        self.sequence = 0
        await self.write(*(event for event, _ in opened))

    async def write(self, *events: Event, ending: str = "") -> None:
        """Append events of this attempt."""
        assert self.claim is not None
        made = frames(self.claim.attempt, self.sequence, [(event, b"") for event in events])
        self.sequence += len(made)
        batch = log.Batch(self.message_id, self.claim.token, made, 60, ending)
        await log.append(self.redis, batch)

    async def end(self) -> None:
        """Write the end of a message of ten characters."""
        await self.write(
            Usage(input_tokens=1), Done(FinishReason.STOP, 10), ending=record.Status.DONE
        )


@pytest.fixture
async def run(context: Context) -> Run:
    return Run(context.redis, (await accept.accept(context, OFFER)).message_id)


async def seen(context: Context, message_id: str, query: str = "") -> dict[str, Any]:
    transport = httpx.ASGITransport(Application(context))
    async with httpx.AsyncClient(transport=transport, base_url="http://api") as client:
        answer = await client.get(f"/api/messages/{message_id}{query}")
        assert answer.status_code == 200, answer.text
        return dict(answer.json())


async def test_a_queued_message_has_nothing_yet(context: Context, run: Run) -> None:
    found = await seen(context, run.message_id)
    assert (found["status"], found["text"], found["last_event_id"]) == ("queued", "", None)
    assert (found["attempt"], found["attempts"]) == (0, [])
    assert found["started_at"] is found["finished_at"] is found["usage"] is found["error"] is None


async def test_a_running_one_has_its_text_so_far(context: Context, run: Run) -> None:
    await run.begin()
    await run.write(Text("Grüße "), Text("\N{GRINNING FACE}"))
    found = await seen(context, run.message_id)
    assert (found["status"], found["text"]) == ("streaming", "Grüße \N{GRINNING FACE}")
    assert (found["last_event_id"], found["attempt"]) == ("1-2", 1)
    assert found["finished_at"] is None


async def test_an_ended_one_has_its_usage_and_its_times(context: Context, run: Run) -> None:
    await run.begin()
    await run.end()
    found = await seen(context, run.message_id)
    assert (found["status"], found["last_event_id"]) == ("done", "1-2")
    assert found["usage"]["input_tokens"] == 1
    assert found["created_at"] <= found["started_at"] <= found["finished_at"]
    (attempt,) = found["attempts"]
    assert (attempt["finished_at"], attempt["usage"]) == (found["finished_at"], found["usage"])


async def test_a_failed_one_has_its_error(context: Context, run: Run) -> None:
    await run.begin()
    failed = Failed(FailureCode.RATE_LIMITED, "slow down", retryable=True, status=429)
    await run.write(failed, ending=record.Status.FAILED)
    found = await seen(context, run.message_id)
    assert (found["status"], found["usage"]) == ("failed", None)
    assert found["error"] == {
        "code": "rate_limited", "message": "slow down", "retryable": True, "status": 429,
    }  # fmt: skip


async def test_what_a_reset_took_back_is_not_shown(context: Context, run: Run) -> None:
    await run.begin()
    await run.write(Text("lost "))
    await run.begin("worker_lost")
    await run.write(Text("kept"))
    found = await seen(context, run.message_id)
    assert (found["text"], found["attempt"]) == ("kept", 2)
    assert [attempt["attempt"] for attempt in found["attempts"]] == [1, 2]
    assert found["attempts"][1]["reason"] == "worker_lost"


async def test_a_log_longer_than_a_page_is_read_whole(
    context: Context, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "PAGE", 3)
    await run.begin()
    await run.write(*(Text(f"{n} ") for n in range(9)))
    found = await seen(context, run.message_id)
    assert found["text"] == "0 1 2 3 4 5 6 7 8 "
    assert found["last_event_id"] == "1-9"


async def test_an_end_between_the_two_reads_is_seen_in_both(
    context: Context, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    await run.begin()
    await run.write(Text("text"))
    load = record.load

    async def ending_load(redis: Redis, message_id: str) -> Any:
        if loads.pop():
            await run.end()
        return await load(redis, message_id)

    loads = [False, True, False]  # first to find it, then beside the log, then once more
    monkeypatch.setattr(record, "load", ending_load)
    found = await seen(context, run.message_id)
    assert (found["status"], found["last_event_id"], found["text"]) == ("done", "1-3", "text")
    assert found["usage"] is not None


async def test_another_owners_message_answers_as_an_unknown_one(
    context: Context, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint, "owner_of", lambda _: "another")
    transport = httpx.ASGITransport(Application(context))
    async with httpx.AsyncClient(transport=transport, base_url="http://api") as client:
        other = await client.get(f"/api/messages/{run.message_id}")
        unknown = await client.get("/api/messages/01980000-0000-7000-8000-000000000000")
    assert (other.status_code, other.content) == (unknown.status_code, unknown.content)
    assert other.status_code == 404


async def test_a_wait_ends_at_once_when_the_process_drains(context: Context, run: Run) -> None:
    context.hub.drain()
    found = await seen(context, run.message_id, "?wait=60")
    assert found["status"] == "queued"


@pytest.mark.parametrize("wait", ["61", "-1", "x", "", "nan", "inf", "1e1", "1_0", "٣"])
async def test_a_wait_that_is_no_time_is_422(context: Context, run: Run, wait: str) -> None:
    transport = httpx.ASGITransport(Application(context))
    async with httpx.AsyncClient(transport=transport, base_url="http://api") as client:
        answer = await client.get(f"/api/messages/{run.message_id}", params={"wait": wait})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["loc"] == ["query", "wait"]


def shown(call: dict[str, Any]) -> tuple[str, Any, Any, bool, Any, bool]:
    names = ("tool_call_id", "result", "error", "ended", "needs", "running")
    return tuple(call[name] for name in names)


async def test_tool_calls_tell_how_far_each_of_them_came(context: Context, run: Run) -> None:
    await run.begin()
    await run.write(ToolCall("a", "look", {"at": 1}), ToolResult("a", "look", None))
    await run.write(Step(1, FinishReason.TOOL_CALLS))
    await run.write(*(ToolCall(name, "mail", {}) for name in ("b", "c", "d", "e")))
    await run.write(
        ToolWaiting("b", "mail", Needs.APPROVAL), ToolWaiting("c", "mail", Needs.RESULT)
    )
    await run.write(ToolStart("d", "mail"), ToolError("e", "mail", "refused"))
    calls = (await seen(context, run.message_id))["tool_calls"]
    assert [shown(call) for call in calls] == [
        ("a", None, None, True, None, False),
        ("b", None, None, False, "approval", False),
        ("c", None, None, False, "result", False),
        ("d", None, None, False, None, True),
        ("e", None, "refused", True, None, False),
    ]
    assert calls[0] == calls[0] | {"step": 1, "name": "look", "arguments": {"at": 1}}
    assert {call["step"] for call in calls[1:]} == {2}
    await run.write(ToolStart("b", "mail"))
    calls = (await seen(context, run.message_id))["tool_calls"]
    assert shown(calls[1]) == ("b", None, None, False, None, True)
    await run.write(ToolResult("b", "mail", {"sent": 1}))
    calls = (await seen(context, run.message_id))["tool_calls"]
    assert shown(calls[1]) == ("b", {"sent": 1}, None, True, None, False)


async def test_a_message_that_waits_says_so(context: Context, run: Run) -> None:
    await run.begin()
    await run.write(ToolCall("a", "mail", {}), ToolWaiting("a", "mail", Needs.APPROVAL))
    assert (await seen(context, run.message_id))["status"] == "streaming"
    await ask(run.redis, run.message_id, "t", "a")
    await waiting.park(run.redis, run.message_id, token="t", call_ids=["a"])
    found = await seen(context, run.message_id)
    assert found["status"] == "waiting"
    transport = httpx.ASGITransport(Application(context))
    async with httpx.AsyncClient(transport=transport, base_url="http://api") as client:
        conversation = await client.get(f"/api/conversations/{found['conversation_id']}")
    (_, answer) = conversation.json()["messages"]
    assert conversation.json()["active_message_id"] == run.message_id
    assert answer["status"] == "waiting"
    assert answer["tool_calls"] == found["tool_calls"]
    assert answer["tool_calls"][0]["needs"] == "approval"
    await run.begin("again")
    assert (await seen(context, run.message_id))["status"] == "streaming"

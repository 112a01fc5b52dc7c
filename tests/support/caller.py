"""A caller of the native API, and an independent reading of its logs by docs/protocol.md."""

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import httpx

from tests.support.sse_reader import ENDS, SseFrame, SseReader, open_tail

MESSAGE_ID: Final = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
)
UNKNOWN_ID: Final = "01980000-0000-7000-8000-000000000000"
CALL_SECONDS: Final = 20.0
CODES: Final = frozenset(
    [
        "rate_limited",
        "context_length_exceeded",
        "authentication",
        "invalid_request",
        "content_filter",
        "provider_unavailable",
        "provider_timeout",
        "provider_protocol",
        "invalid_output",
        "attempts_exhausted",
        "deadline_exceeded",
        "internal",
    ]
)


class _BoundedClient(httpx.AsyncClient):
    """Bounds a whole call: httpx's own time-outs never end a body that goes on and on."""

    async def send(self, request: httpx.Request, **how: Any) -> httpx.Response:
        async with asyncio.timeout(CALL_SECONDS):
            return await super().send(request, **how)


@asynccontextmanager
async def caller(url: str) -> AsyncIterator["Caller"]:
    """Open a caller of the API at `url`; every call of it is bounded."""
    async with _BoundedClient(
        base_url=url, timeout=CALL_SECONDS, trust_env=False, verify=False
    ) as http:
        yield Caller(http)


class Caller:
    """Speaks the native API; `http` is for everything out of the ordinary."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self.http = http

    def link(self, message_id: str, rest: str = "") -> str:
        """The absolute address of a message, or of what is below it."""
        return str(self.http.base_url.join(f"/api/messages/{message_id}{rest}"))

    def events(self, message_id: str) -> str:
        """The absolute address of a message's events."""
        return self.link(message_id, "/events")

    async def post(
        self, text: str = "one two three", *, rate: float = 0, **fields: Any
    ) -> httpx.Response:
        """POST a message for demo/echo; `fields` over its body, `headers` apart."""
        headers = fields.pop("headers", None)
        body = {"model": f"demo/echo?rate={rate:g}", "input": text} | fields
        return await self.http.post("/api/messages", json=body, headers=headers)

    async def accepted(self, text: str = "one two three", *, rate: float = 0, **fields: Any) -> str:
        """POST a message and check that it was taken: its id."""
        response = await self.post(text, rate=rate, **fields)
        assert response.status_code == 202, response.text
        message_id: str = response.json()["message_id"]
        return message_id

    @asynccontextmanager
    async def tailed(
        self, text: str = "one two three", *, rate: float = 0, **fields: Any
    ) -> AsyncIterator[tuple[str, SseReader]]:
        """POST a message as `accepted` does, and tail it for the block: its id, and the tail."""
        message_id = await self.accepted(text, rate=rate, **fields)
        async with open_tail(self.events(message_id)) as tail:
            yield message_id, tail

    async def log(self, message_id: str, **tail: Any) -> list[SseFrame]:
        """Tail a message to its end: every event."""
        async with open_tail(self.events(message_id)) as stream:
            frames = await stream.read_until_end(**tail)
        assert stream.saw_end, "the stream ended before the log did"
        return frames

    async def snapshot(self, message_id: str, **query: Any) -> dict[str, Any]:
        """The message so far."""
        response = await self.http.get(f"/api/messages/{message_id}", params=query)
        assert response.status_code == 200, response.text
        body: dict[str, Any] = response.json()
        return body

    async def page(self, message_id: str, after: str | None = None, **query: Any) -> dict[str, Any]:
        """One page of events in JSON."""
        headers = {"Accept": "application/json"}
        if after is not None:
            headers["Last-Event-ID"] = after
        response = await self.http.get(
            f"/api/messages/{message_id}/events", params=query, headers=headers
        )
        assert response.status_code == 200, response.text
        assert response.headers["content-type"].startswith("application/json")
        body: dict[str, Any] = response.json()
        assert set(body) == {"events", "next", "ended"}
        return body

    async def cancel(self, message_id: str, **how: Any) -> httpx.Response:
        """Ask for a cancel."""
        return await self.http.post(f"/api/messages/{message_id}/cancel", **how)


async def until(
    seen: Callable[[], Awaitable[bool]], *, within: float = 10, every: float = 0.02
) -> None:
    """Wait until `seen()`; TimeoutError after `within` seconds."""
    async with asyncio.timeout(within):
        while not await seen():  # noqa: ASYNC110  another process sets no event of ours
            await asyncio.sleep(every)


def assert_problem(response: httpx.Response, status: int) -> dict[str, Any]:
    """Check that an error is problem+json of `status` (RFC 9457) and gives nothing away."""
    assert response.status_code == status, f"{response.status_code}: {response.text[:2000]}"
    content_type = response.headers.get("content-type", "")
    assert content_type.split(";")[0].strip() == "application/problem+json", content_type
    problem: dict[str, Any] = response.json()
    assert problem["status"] == status
    for name in ("type", "title", "detail"):
        assert isinstance(problem[name], str), name
        assert problem[name], name
    for secret in ("Traceback", ".py", "redis://", "site-packages"):
        assert secret not in response.text, response.text
    return problem


def assert_names(problem: Mapping[str, Any], field: str) -> None:
    """Check that a problem's `errors` name the field."""
    errors = problem.get("errors")
    assert isinstance(errors, list), problem
    for error in errors:
        assert isinstance(error["loc"], list), error
        assert isinstance(error["msg"], str), error
        assert error["msg"], error
    assert any(field in error["loc"] for error in errors), f"{field} is not in {errors}"


def assert_try_later(response: httpx.Response) -> None:
    """Check a 503 and the whole seconds that its Retry-After names."""
    assert_problem(response, 503)
    seconds = response.headers["retry-after"]
    assert seconds.isascii(), seconds
    assert seconds.isdigit(), seconds


def kept_frames(frames: Sequence[SseFrame]) -> list[SseFrame]:
    """The events that no `reset` took back; fail on a gap."""
    kept: list[SseFrame] = []
    for frame in frames:
        if frame.event == "start" or (frame.event == "reset" and frame.id is None):
            kept = []
        elif frame.event == "reset" and frame.data["after"] is None:
            kept = [old for old in kept if old.event == "start"]
        elif frame.event == "reset":
            ids = [old.id for old in kept]
            assert frame.data["after"] in ids, f"{frame.data} names an event that is not there"
            kept = kept[: ids.index(frame.data["after"]) + 1]
        kept.append(frame)
    return kept


def visible_text(frames: Sequence[SseFrame]) -> str:
    """Join the text of every event that no `reset` took back; fail on a gap."""
    return "".join(frame.data["text"] for frame in kept_frames(frames) if frame.event == "text")


def names(frames: Sequence[SseFrame]) -> list[str]:
    """The events' names, runs of text as one."""
    found: list[str] = []
    for frame in frames:
        if not (frame.event == "text" and found[-1:] == ["text"]):
            found.append(frame.event)
    return found


def data_of(frames: Sequence[SseFrame], name: str) -> list[dict[str, Any]]:
    """The data of every event of this name."""
    return [frame.data for frame in frames if frame.event == name]


def assert_whole_log(frames: Sequence[SseFrame]) -> None:
    """Check a log from its start to its end: ids without holes, `start` first, one end, last."""
    assert frames[0].event == "start"
    assert frames[-1].event in ENDS, frames[-1]
    assert sum(frame.event in ENDS for frame in frames) == 1
    assert sum(frame.event == "usage" for frame in frames) <= 1
    previous = (0, 0)
    for frame in frames:
        assert frame.id is not None, frame
        attempt, sequence = (int(part) for part in frame.id.split("-"))
        if attempt == previous[0]:
            assert sequence == previous[1] + 1, f"a hole before {frame.id}"
        else:
            assert attempt > previous[0], f"{frame.id} goes back"
            assert sequence == 0, f"attempt {attempt} begins with {frame.id}"
            assert frame.event == ("start" if previous == (0, 0) else "reset"), frame
            assert frame.data["attempt"] == attempt
        previous = (attempt, sequence)


def as_json(body: Mapping[str, Any]) -> bytes:
    """Encode a body as clients do."""
    return json.dumps(body).encode()


class Stopwatch:
    """Seconds since it was made, for the few bounds that the contract states."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds so far."""
        return time.monotonic() - self._began

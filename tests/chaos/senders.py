"""Posts the planned messages until each is accepted, cancels them, and answers their calls."""

import asyncio
import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import httpx

from tests.chaos.cluster import Doors
from tests.chaos.plan import MessagePlan
from tests.chaos.tally import Tally
from tests.chaos.tool_plan import DEFINITION, POLICIES, CallPlan, Reply

ANSWER_SECONDS: Final = 15.0  # the contract's five, and an API's SIGSTOP
_PAUSE_SECONDS: Final = (0.05, 0.5)
_JSON: Final = {"Content-Type": "application/json"}


@dataclass(frozen=True, slots=True)
class Said:
    """What a call that waited was answered, and the status that came back."""

    body: dict[str, object]
    status: int


class Message:
    """A planned message and what became of it at the door.

    `waits` are calls that a reader saw waiting, each `tool_waiting` once; `said` is what people
    answered to them, by the calls' ids, in the order of the replies.
    """

    def __init__(self, plan: MessagePlan) -> None:
        self.plan = plan
        self.id = ""
        self.conversation_id = ""
        self.accepted = asyncio.Event()
        self.cancel_status = 0
        self.body = b""
        self.waits: asyncio.Queue[tuple[str, CallPlan] | None] = asyncio.Queue()
        self.said: dict[str, list[Said]] = {}
        self.snapshot: dict[str, Any] | None = None  # after its end
        self.created_at = self.ended_at = 0.0  # in seconds since the epoch
        self._marks: dict[str, str] = {}
        self._seen_waiting: set[str] = set()

    def prepare(self, conversation_id: str) -> None:
        """Write the body of its POST; an empty id: it begins a conversation."""
        body: dict[str, object] = {"model": self.plan.model, "input": self.plan.input}
        if conversation_id:
            body["conversation_id"] = conversation_id
        if self.plan.fallback:
            body["fallbacks"] = [self.plan.fallback]
        if self.plan.goes_on:
            body["recover"] = "continue"
        if self.plan.tools.steps:
            body["tools"] = [*POLICIES, DEFINITION]
        self.body = json.dumps(body).encode()

    def heard(self, event_id: str, event: str, data: Mapping[str, Any]) -> None:
        """Take an event that a reader has: people answer to what they see."""
        if event == "tool_call":
            self._marks[data["tool_call_id"]] = data["arguments"].get("mark", "")
        elif event == "tool_waiting" and event_id not in self._seen_waiting:
            made = self.plan.tools.by_mark.get(self._marks.get(data["tool_call_id"], ""))
            if made is not None:
                self._seen_waiting.add(event_id)
                self.waits.put_nowait((data["tool_call_id"], made))

    @property
    def headers(self) -> dict[str, str]:
        """Those of its POST."""
        return {"Content-Type": "application/json", "Idempotency-Key": self.plan.key}

    def __str__(self) -> str:
        return f"message {self.plan.number} ({self.id or 'not accepted'}, {self.plan.model[:160]})"


class Callers:
    """Calls the APIs: any of them, directly or by a proxy, and again until one answers."""

    def __init__(self, doors: Doors, tally: Tally, http: httpx.AsyncClient) -> None:
        self._doors = doors
        self._tally = tally
        self._http = http

    async def answer(
        self,
        what: str,
        method: str,
        path: str,
        *,
        chance: random.Random,
        by_proxy: bool,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        wait_seconds: float = 0,
    ) -> httpx.Response:
        """Return the first answer that is not a 503; it must come in time."""
        while True:
            url = self._doors.choose(chance, by_proxy=by_proxy) + path
            self._tally.counts[f"{what} tries"] += 1
            try:
                async with asyncio.timeout(ANSWER_SECONDS + wait_seconds):
                    response = await self._http.request(
                        method, url, content=body, headers=dict(headers or {})
                    )
            except httpx.TransportError:
                self._tally.counts[f"{what} cut"] += 1
            except TimeoutError:
                self._tally.wrong(f"no answer in {ANSWER_SECONDS + wait_seconds} s: {method} {url}")
            else:
                if response.status_code != 503:
                    return response
                self._tally.counts[f"{what} 503"] += 1
                if not response.headers.get("retry-after", "").isdigit():
                    self._tally.wrong(f"a 503 without Retry-After: {method} {url}")
            await asyncio.sleep(chance.uniform(*_PAUSE_SECONDS))

    async def post(self, message: Message, seed: str) -> None:
        """Send a message until it is accepted; the id is the same at every try."""
        chance = random.Random(f"{seed} post {message.plan.number}")
        response = await self.answer(
            "post",
            "POST",
            "/api/messages",
            chance=chance,
            by_proxy=chance.random() < 0.5,
            body=message.body,
            headers=message.headers,
        )
        if response.status_code != 202:
            self._tally.wrong(f"{message}: POST {response.status_code} {response.text[:300]}")
            raise RuntimeError(f"{message} was refused")
        message_id = response.json()["message_id"]
        if message.id not in ("", message_id):
            self._tally.wrong(f"{message}: the same key gave {message_id} too")
        message.id = message_id
        message.conversation_id = response.json()["conversation_id"]
        message.accepted.set()

    async def cancel(self, message: Message, seed: str, *, after_step: bool = False) -> None:
        """Ask for a cancel until there is an answer."""
        chance = random.Random(f"{seed} cancel {message.plan.number} {after_step}")
        response = await self.answer(
            "cancel",
            "POST",
            f"/api/messages/{message.id}/cancel",
            chance=chance,
            by_proxy=chance.random() < 0.5,
            body=b'{"mode": "after_step"}' if after_step else None,
            headers=_JSON if after_step else None,
        )
        if message.cancel_status == 202 != response.status_code:
            self._tally.wrong(f"{message}: a second cancel was answered {response.status_code}")
        message.cancel_status = response.status_code
        if response.status_code not in (202, 409):
            self._tally.wrong(f"{message}: cancel {response.status_code} {response.text[:300]}")

    async def reply(self, message: Message, call_id: str, reply: Reply, seed: str) -> None:
        """Answer a call that waits, until it is heard."""
        await asyncio.sleep(reply.after)
        chance = random.Random(f"{seed} reply {message.plan.number} {reply}")
        response = await self.answer(
            "reply",
            "POST",
            f"/api/messages/{message.id}/tools/{call_id}",
            chance=chance,
            by_proxy=chance.random() < 0.5,
            body=reply.body.encode(),
            headers=_JSON,
        )
        message.said.setdefault(call_id, []).append(Said(reply.said, response.status_code))
        self._tally.counts[f"replies {response.status_code}"] += 1
        if response.status_code not in (202, 409):
            self._tally.wrong(
                f"{message}: reply to {call_id} {response.status_code} {response.text[:300]}"
            )

    async def look(self, message: Message, seed: str) -> None:
        """Keep the snapshot of a message that has ended."""
        response = await self.answer(
            "last snapshot",
            "GET",
            f"/api/messages/{message.id}",
            chance=random.Random(f"{seed} look {message.plan.number}"),
            by_proxy=False,
        )
        if response.status_code == 200:
            message.snapshot = response.json()
        else:
            self._tally.wrong(f"{message}: its last snapshot {response.status_code}")

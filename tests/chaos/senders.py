"""Posts the planned messages until each is accepted, and asks for the planned cancels."""

import asyncio
import json
import random
from collections.abc import Mapping
from typing import Final

import httpx

from tests.chaos.cluster import Doors
from tests.chaos.plan import MessagePlan
from tests.chaos.tally import Tally

ANSWER_SECONDS: Final = 15.0  # the contract's five, and an API's SIGSTOP
_PAUSE_SECONDS: Final = (0.05, 0.5)


class Message:
    """A planned message and what became of it at the door."""

    def __init__(self, plan: MessagePlan) -> None:
        self.plan = plan
        self.id = ""
        self.cancel_status = 0
        self.body = json.dumps({"model": plan.model, "input": plan.input}).encode()

    @property
    def headers(self) -> dict[str, str]:
        """Those of its POST."""
        return {"Content-Type": "application/json", "Idempotency-Key": self.plan.key}

    def __str__(self) -> str:
        return f"message {self.plan.number} ({self.id or 'not accepted'}, {self.plan.model[:80]})"


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

    async def cancel(self, message: Message, seed: str) -> None:
        """Ask for a cancel until there is an answer."""
        chance = random.Random(f"{seed} cancel {message.plan.number}")
        response = await self.answer(
            "cancel",
            "POST",
            f"/api/messages/{message.id}/cancel",
            chance=chance,
            by_proxy=chance.random() < 0.5,
        )
        message.cancel_status = response.status_code
        if response.status_code not in (202, 409):
            self._tally.wrong(f"{message}: cancel {response.status_code} {response.text[:300]}")

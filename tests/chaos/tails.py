"""Tails of all kinds: they are cut, lag, come back by Last-Event-ID and keep each event."""

import asyncio
import json
import random
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final
from urllib.parse import urlsplit

from tests.chaos.cluster import Doors
from tests.chaos.plan import Reader, TailPlan
from tests.chaos.senders import Callers, Message
from tests.chaos.tally import Tally
from tests.support.sse_reader import ENDS, Item, SseFrame, SseReader

SILENCE_SECONDS: Final = 12.0  # a keep-alive a second, an API's SIGSTOP of four, a busy machine
_SLOW_BUFFER_BYTES: Final = 4096
_BACK_SECONDS: Final = (0.02, 0.4)


class Tail:
    """One reader of one message. `raws` are the events it has, byte for byte, in order."""

    def __init__(
        self,
        message: Message,
        plan: TailPlan,
        doors: Doors,
        callers: Callers,
        tally: Tally,
        seed: str,
    ) -> None:
        self.message = message
        self.plan = plan
        self.raws: list[bytes] = []
        self.last_id: str | None = None
        self.began_after: str | None = None  # the snapshot's last_event_id
        self.snapshot_text: str | None = None
        self.ended = False
        self._doors = doors
        self._callers = callers
        self._tally = tally
        self._chance = random.Random(f"{seed} tail {message.plan.number} {plan.number}")

    def __str__(self) -> str:
        how = f"{self.plan.reader}{' by proxy' * self.plan.by_proxy}{' slow' * self.plan.slow}"
        return f"tail {self.plan.number} ({how}) of {self.message}"

    async def run(self) -> None:
        """Read the message to its end, however often the connection breaks."""
        await asyncio.sleep(self.plan.after)
        self._tally.counts["tails"] += 1
        if self.plan.reader is Reader.SNAPSHOT:
            await self._begin_at_a_snapshot()
        while not self.ended:
            if self.plan.reader is Reader.PAGES:
                await self._read_page()
            else:
                await self._read_stream()
                await asyncio.sleep(self._chance.uniform(*_BACK_SECONDS))

    async def _begin_at_a_snapshot(self) -> None:
        response = await self._callers.answer(
            "snapshot",
            "GET",
            f"/api/messages/{self.message.id}",
            chance=self._chance,
            by_proxy=False,  # a long message's would be cut again and again
        )
        if response.status_code != 200:
            self._tally.wrong(f"{self}: snapshot {response.status_code} {response.text[:300]}")
            return
        seen = response.json()
        self.began_after = self.last_id = seen["last_event_id"]
        self.snapshot_text = seen["text"]

    async def _read_stream(self) -> None:
        self._tally.counts["connections"] += 1
        self._tally.counts["resumes"] += self.last_id is not None
        try:
            async with self._request() as stream:
                await self._read(stream)
        except ConnectionError:
            self._tally.counts["connections broken"] += 1
        except TimeoutError:
            self._tally.wrong(f"{self}: silent for {SILENCE_SECONDS} s after {self.last_id}")
        except AssertionError as error:
            self._tally.wrong(f"{self}: after {self.last_id}: {error}")

    async def _read(self, stream: SseReader) -> None:
        if stream.status == 204 and self.last_id is not None:
            self._tally.counts["204"] += 1
            self.ended = True
        elif stream.status == 503 and self.plan.reader is Reader.POST:
            self._tally.counts["post stream 503"] += 1
        elif stream.status != 200:
            self._tally.wrong(f"{self}: status {stream.status} after {self.last_id}")
        else:
            await self._read_events(stream)

    async def _read_events(self, stream: SseReader) -> None:
        seen = 0

        def news() -> bool:
            return stream.body_ended or len(stream.items) > seen

        while not stream.body_ended:
            await stream.until(news, within=SILENCE_SECONDS)
            for item in stream.items[seen:]:
                self._take(item)
            seen = len(stream.items)
            if self.plan.slow and self._chance.random() < 0.05:
                self._tally.counts["times a slow reader stopped"] += 1
                await asyncio.sleep(self._chance.uniform(0.5, 4))
        await stream.read_until_end()  # nothing is left; it refuses half a frame

    def _take(self, item: Item) -> None:
        if not isinstance(item, SseFrame):
            return
        assert not self.ended, f"{item.id} {item.event} follows the end"
        if item.id is None:
            self._tally.counts["position_unknown"] += 1
            self._tally.wrong(f"{self}: position_unknown after {self.last_id}")
            self.raws, self.last_id, self.began_after = [], None, None
            return
        assert self.last_id is None or _place(item.id) > _place(self.last_id), (
            f"{item.id} came after {self.last_id}"
        )
        self._tally.counts["events"] += 1
        self._tally.counts["resets"] += item.event == "reset"
        self.raws.append(item.raw)
        self.message.heard(item.id, item.event, item.data)
        self.last_id = item.id
        self.ended = item.event in ENDS

    @asynccontextmanager
    async def _request(self) -> AsyncIterator[SseReader]:
        message, post = self.message, self.plan.reader is Reader.POST
        root = urlsplit(self._doors.choose(self._chance, by_proxy=self.plan.by_proxy))
        fields = {"Host": root.netloc, "Accept": "text/event-stream"}
        if self.last_id is not None:
            fields["Last-Event-ID"] = self.last_id
        if post:
            fields |= message.headers | {"Content-Length": str(len(message.body))}
        path = "/api/messages" if post else f"/api/messages/{message.id}/events"
        lines = [f"{'POST' if post else 'GET'} {path} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in fields.items()]
        sock = socket.socket()
        sock.setblocking(False)
        if self.plan.slow:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SLOW_BUFFER_BYTES)
        async with asyncio.timeout(SILENCE_SECONDS):
            try:
                await asyncio.get_running_loop().sock_connect(sock, (root.hostname, root.port))
            except OSError:
                sock.close()
                raise
            reader, writer = await asyncio.open_connection(sock=sock, limit=_SLOW_BUFFER_BYTES)
        stream = SseReader(reader, writer)
        try:
            writer.write(("\r\n".join(lines) + "\r\n\r\n").encode() + message.body * post)
            async with asyncio.timeout(SILENCE_SECONDS):
                await stream.read_head()
            yield stream
        finally:
            writer.transport.abort()

    async def _read_page(self) -> None:
        limit = self._chance.randint(1, 40 if self.plan.by_proxy else 400)
        headers = {"Accept": "application/json"}
        if self.last_id is not None:
            headers["Last-Event-ID"] = self.last_id
        response = await self._callers.answer(
            "page",
            "GET",
            f"/api/messages/{self.message.id}/events?limit={limit}&wait=2",
            chance=self._chance,
            by_proxy=self.plan.by_proxy,
            headers=headers,
            wait_seconds=2,
        )
        if response.status_code != 200:
            self._tally.wrong(f"{self}: page {response.status_code} {response.text[:300]}")
            await asyncio.sleep(_BACK_SECONDS[1])
            return
        page = response.json()
        try:
            for event in page["events"]:
                self._take(_frame(**event))
            assert page["next"] == self.last_id, f"next is {page['next']}"
            assert page["ended"] == self.ended, f"ended is {page['ended']}"
        except AssertionError as error:
            self._tally.wrong(f"{self}: {error}")
        self.ended = self.ended or page["ended"]


def _frame(id: str | None, event: str, data: dict[str, object]) -> SseFrame:  # noqa: A002
    """A page's event as the stream would send it."""
    told = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return SseFrame(f"event: {event}\ndata: {told}\nid: {id}\n\n".encode(), event, data, id)


def _place(event_id: str) -> tuple[int, int]:
    attempt, sequence = event_id.split("-")
    return int(attempt), int(sequence)

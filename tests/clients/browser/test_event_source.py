"""A plain `new EventSource(...)` in a real browser, behind a proxy that cuts its connections."""

import asyncio
import json
from collections.abc import Iterator
from itertools import count

from playwright.async_api import Page

from tests.support.caller import caller
from tests.support.cutting_proxy import UNCUT, Cut, cutting_proxy, random_cuts
from tests.support.processes import Stack

TEXT = " ".join(f"wörd-{n}\u2028😀" for n in range(80))

# Nothing but what the README shows: no close() at the end, so that only the 204 can stop it.
READ = """url => new Promise(resolve => {
  const events = [];
  const source = new EventSource(url);
  for (const name of ["start", "reset", "text", "step", "usage", "done", "failed"]) {
    source.addEventListener(name, event => {
      events.push({id: event.lastEventId, event: name, data: event.data});
    });
  }
  source.addEventListener("error", () => {
    if (source.readyState === EventSource.CLOSED) {
      resolve(events);
    }
  });
})"""


class Arming:
    """Cuts that begin once the page itself has been loaded."""

    def __init__(self, cuts: Iterator[Cut]) -> None:
        self.armed = False
        self._cuts = cuts

    def __iter__(self) -> Iterator[Cut]:
        for _ in count():
            yield next(self._cuts, UNCUT) if self.armed else UNCUT


def text_of(events: list[dict[str, str]]) -> str:
    return "".join(json.loads(e["data"])["text"] for e in events if e["event"] == "text")


async def read_through_cuts(page: Page, stack: Stack, *, rate: float, seed: int) -> None:
    cuts = Arming(random_cuts(seed, least=200, most=2000))
    async with (
        caller(stack.url) as api,
        cutting_proxy(stack.api.port, cuts) as proxy,
        asyncio.timeout(90),
    ):
        await page.goto(f"{proxy.url}/healthz")  # a document of that origin, and no more
        cuts.armed = True  # first: the browser may open a spare connection in place of those cut
        await proxy.cut_all()  # the connection that it came by would be used again, uncut
        message_id = await api.accepted(TEXT, rate=rate)
        events = await page.evaluate(READ, f"{proxy.url}/api/messages/{message_id}/events")
        connections = proxy.connections
        log = await api.log(message_id)
        assert [(e["id"], e["event"], json.loads(e["data"])) for e in events] == [
            (frame.id, frame.event, frame.data) for frame in log
        ]
        assert (
            "".join(json.loads(e["data"])["text"] for e in events if e["event"] == "text") == TEXT
        )
        assert proxy.cut_connections > 3
        # Ten times the server's `retry:`: whoever were to come back would have.
        await asyncio.sleep(0.5)
        assert proxy.connections == connections


async def test_a_live_answer_ends_with_the_exact_text_and_no_further_request(
    page: Page, stack: Stack
) -> None:
    await read_through_cuts(page, stack, rate=100, seed=1)


async def test_a_finished_answer_ends_with_the_exact_text_and_no_further_request(
    page: Page, stack: Stack
) -> None:
    await read_through_cuts(page, stack, rate=0, seed=2)


async def test_a_restarted_api_is_come_back_to(page: Page, own_stack: Stack) -> None:
    async with caller(own_stack.url) as api, asyncio.timeout(90):
        await page.goto(f"{own_stack.url}/healthz")
        message_id = await api.accepted(TEXT, rate=40)
        reading = asyncio.create_task(page.evaluate(READ, api.events(message_id)))
        await asyncio.to_thread(own_stack.api.terminate)
        own_stack.api.launch()
        events = await reading
        assert [e["id"] for e in events] == [f"1-{n}" for n in range(len(events))]
        assert (
            "".join(json.loads(e["data"])["text"] for e in events if e["event"] == "text") == TEXT
        )

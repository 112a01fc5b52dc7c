"""The API below a prefix of another application: the guide's two, under a real uvicorn."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

import httpx
import pytest

from rejoin.client import Client
from tests.support.caller import (
    UNKNOWN_ID,
    Caller,
    assert_problem,
    assert_whole_log,
    caller,
    names,
    visible_text,
)
from tests.support.processes import Api, Stack
from tests.support.sse_reader import RetryField, SseFrame, open_tail, sse_request

GUIDE = Path(__file__).parents[2] / "docs" / "how-to"
PREFIX = "/rejoin"
TEXT = "words of an answer that goes on for a while " * 4


class Mounted(Api):
    """A guide's application under uvicorn, as its users run it; `url` is Rejoin's in it."""

    module = "uvicorn"

    def __init__(
        self, name: str, redis_url: str, directory: Path, settings: Mapping[str, str]
    ) -> None:
        super().__init__(f"{name}-{Path(redis_url).name}", redis_url, directory, settings)
        self.arguments = (
            *(f"{name}:app", "--app-dir", str(GUIDE), "--port", str(self.port)),
            *("--timeout-graceful-shutdown", "10"),
        )

    @property
    def url(self) -> str:
        return super().url + PREFIX

    @property
    def outer_url(self) -> str:
        """The root of the application around it."""
        return super().url

    def start(self) -> Self:
        super().start()
        return self


@contextmanager
def mounted(name: str, stack: Stack) -> Iterator[Mounted]:
    """Run the guide's application `name` beside the stack's worker, on its Redis."""
    with ExitStack() as ends:
        process = Mounted(name, stack.redis.url, stack.api.log.parent, {})
        ends.callback(process.kill)
        yield process.start()
        process.assert_no_traceback()


@pytest.fixture(scope="module", params=["mount_starlette", "mount_fastapi"])
def module_outer(request: pytest.FixtureRequest, shared_stack: Stack) -> Iterator[Mounted]:
    """One of the guide's applications, for all of these tests that do not end it."""
    with mounted(request.param, shared_stack) as process:
        yield process


@pytest.fixture
async def below(module_outer: Mounted) -> AsyncIterator[Caller]:
    """A caller below the prefix."""
    async with caller(module_outer.url) as speaker:
        yield speaker


async def accepted_links(below: Caller, text: str, *, rate: float) -> dict[str, str]:
    """POST a message; its links, absolute. They and Location have the prefix."""
    response = await below.post(text, rate=rate)
    assert response.status_code == 202, response.text
    links = response.json()["links"]
    assert response.headers["location"] == links["self"]
    message_id = response.json()["message_id"]
    assert links["self"] == f"{PREFIX}/api/messages/{message_id}"
    return {name: str(below.http.base_url.join(path)) for name, path in links.items()}


async def test_an_answer_is_streamed_cut_and_gone_on_with_by_its_links(below: Caller) -> None:
    links = await accepted_links(below, TEXT, rate=100)
    async with open_tail(links["events"]) as tail:
        first = await tail.read_n(3)
    async with open_tail(links["events"], last_event_id=first[-1].id) as tail:
        rest = await tail.read_until_end()
    frames: list[SseFrame] = [*first, *rest]
    assert_whole_log(frames)
    assert visible_text(frames) == TEXT
    assert (await below.http.get(links["self"])).json()["status"] == "done"


async def test_a_posts_own_stream_says_where_to_come_back(below: Caller) -> None:
    url = str(below.http.base_url).rstrip("/")
    body = json.dumps({"model": "demo/echo?rate=0", "input": TEXT}).encode()
    headers = {"Accept": "text/event-stream", "Content-Type": "application/json"}
    async with sse_request("POST", f"{url}/api/messages", headers=headers, body=body) as stream:
        frames = await stream.read_until_end()
    message_id = frames[0].data["message_id"]
    assert stream.headers["location"] == f"{PREFIX}/api/messages/{message_id}"
    assert visible_text(frames) == TEXT


async def test_a_cancel_by_its_link_ends_it(below: Caller) -> None:
    links = await accepted_links(below, TEXT, rate=2)
    assert (await below.http.post(links["cancel"])).status_code == 202
    async with open_tail(links["events"]) as tail:
        frames = await tail.read_until_end()
    assert frames[-1].data["finish_reason"] == "cancelled"


async def test_the_history_is_there(below: Caller) -> None:
    posted = (await below.post("remembered")).json()
    await below.snapshot(posted["message_id"], wait=10)
    answer = await below.http.get(f"/api/conversations/{posted['conversation_id']}")
    assert answer.status_code == 200, answer.text
    assert "remembered" in answer.text


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/nothing/here", 404),
        ("/api/messages", 405),
        (f"/api/messages/{UNKNOWN_ID}", 404),
        (f"/api/messages/{UNKNOWN_ID}/events", 404),
    ],
)
async def test_errors_below_the_prefix_are_problems(below: Caller, path: str, status: int) -> None:
    assert_problem(await below.http.get(path), status)


async def test_what_is_not_below_the_prefix_is_the_other_applications(
    module_outer: Mounted,
) -> None:
    async with httpx.AsyncClient(base_url=module_outer.outer_url, trust_env=False) as http:
        assert "hello" in (await http.get("/hello")).text
        for path in ("/api/models", "/healthz", "/rejoined/api/models"):
            missing = await http.get(path)
            assert missing.status_code == 404
            assert missing.headers["content-type"] != "application/problem+json"


async def test_the_description_names_the_prefix_as_its_server(below: Caller) -> None:
    described = (await below.http.get("/openapi.json")).json()
    assert described["servers"] == [{"url": PREFIX}]


async def test_the_page_and_what_it_asks_for_are_below_the_prefix(
    below: Caller, module_outer: Mounted
) -> None:
    # Without the slash the page's relative addresses would be the other application's.
    page = await below.http.get(f"{module_outer.outer_url}{PREFIX}", follow_redirects=True)
    assert page.status_code == 200
    assert str(page.url).endswith(f"{PREFIX}/")
    found = re.findall(r'(?:src|href)="([^"#]+)"', page.text)
    assert found
    for address in found:
        assert (await below.http.get(str(page.url.join(address)))).status_code == 200


async def test_the_python_client_takes_the_address_with_the_prefix(module_outer: Mounted) -> None:
    async with asyncio.timeout(20), Client(module_outer.url) as client:
        accepted = await client.send(TEXT, model="demo/echo?rate=0")
        events = [event async for event in client.tail(accepted.message_id)]
    assert events[-1].name == "done"


@pytest.mark.parametrize("name", ["mount_starlette", "mount_fastapi"])
async def test_sigterm_ends_its_streams_in_order_and_they_go_on_elsewhere(
    name: str, stack: Stack
) -> None:
    with mounted(name, stack) as process:
        async with caller(process.url) as below:
            links = await accepted_links(below, TEXT, rate=30)
            async with open_tail(links["events"]) as tail:
                await tail.read_n(3)
                process.signal_stop()
                await tail.read_until_end(within=8)
        assert isinstance(tail.items[-1], RetryField)
        assert not tail.saw_end
        await asyncio.to_thread(process.wait, 5)
    elsewhere = links["events"].replace(process.url, stack.url)
    async with open_tail(elsewhere, last_event_id=tail.last_event_id) as rest:
        frames = [*tail.frames, *await rest.read_until_end()]
    assert_whole_log(frames)
    assert names(frames)[-1] == "done"


def blocks(page: Path) -> list[str]:
    """The Python blocks of a guide."""
    return re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


def test_the_guide_shows_what_is_tested() -> None:
    shown = blocks(GUIDE / "mount.md")
    files: dict[str, Any] = {
        name: (GUIDE / f"{name}.py").read_text(encoding="utf-8")
        for name in ("mount_starlette", "mount_fastapi")
    }
    assert len(shown) == 2
    for block, text in zip(shown, files.values(), strict=True):
        lines = {line for line in block.splitlines() if line.strip()}
        assert lines <= set(text.splitlines())

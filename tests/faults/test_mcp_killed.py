"""MCP servers, and the worker that calls them, killed in mid-call: the message goes on."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest

from rejoin.shared import keys
from tests.support.caller import caller
from tests.support.mcp_serving import HttpServer, Server, http_server
from tests.support.messages import until_true
from tests.support.processes import Stack, rejoin_stack
from tests.support.provider_script import Answer, choice, completion_chunk, sse
from tests.support.provider_server import ProviderServer
from tests.support.redis_server import RedisServer

WITHIN = 60.0
NAMES = ["child__hang", "web__hang"]
LOST = "was lost before it answered: whether it did what it was asked is unknown"


class Servers(NamedTuple):
    """One of each kind, and the settings file that lists them as `child` and `web`."""

    child: Server
    web: HttpServer
    file: Path


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Servers]:
    (tmp_path / "child").mkdir()
    (tmp_path / "web").mkdir()
    child = Server(tmp_path / "child")
    with http_server(tmp_path / "web") as web:
        file = tmp_path / "rejoin.toml"
        file.write_text(
            f"[mcp.child]\ncommand = {json.dumps(child.listed.command)}\n"
            f'[mcp.web]\nurl = "{web.listed.url}"\non_unknown_outcome = "retry"\n',
            encoding="utf-8",
        )
        yield Servers(child, web, file)


def answer(reason: str, **delta: object) -> Answer:
    parts = [choice(delta), choice({}, reason)]
    chunks = [sse(completion_chunk("m", choices=each)) for each in parts]
    return Answer([*chunks, sse("[DONE]")])


def calls(*names: str) -> Answer:
    made = [
        {"index": at, "id": f"call_{at}", "function": {"name": name, "arguments": "{}"}}
        for at, name in enumerate(names)
    ]
    return answer("tool_calls", tool_calls=made)


@asynccontextmanager
async def running(
    redis: RedisServer, servers: Servers, *answers: Answer
) -> AsyncIterator[tuple[Stack, ProviderServer]]:
    async with ProviderServer(lists_models=True) as openai:
        openai.play(*answers)
        settings = {
            "OPENAI_BASE_URL": openai.base_url,
            "REJOIN_SETTINGS_FILE": str(servers.file),
            "REJOIN_LEASE_SECONDS": "1",
        }
        with rejoin_stack(redis, settings=settings) as stack:
            await until_true(lambda: _has_tools(stack), within=WITHIN)
            yield stack, openai


def _has_tools(stack: Stack) -> bool:
    with stack.redis.client() as client:
        known = [client.zscore(keys.REGISTERED, f"tool {name}") for name in NAMES]
    return None not in known


def hangs(server: Server) -> bool:
    """Whether it was asked for the call that never ends."""
    return bool(server.notes("hang"))


async def test_servers_killed_in_mid_call_are_tool_errors_and_the_message_goes_on(
    own_redis: RedisServer, servers: Servers
) -> None:
    script = (calls(*NAMES), answer("stop", content="So be it."))
    async with running(own_redis, servers, *script) as (stack, openai):
        async with caller(stack.url) as api:
            message = await api.accepted("Do it.", model="openai/m", tools=NAMES)
            for server in servers[:2]:
                await until_true(partial(hangs, server), within=WITHIN)
                server.kill()
            ended = (await api.http.get(f"/api/messages/{message}?wait=15")).json()
        assert (ended["status"], ended["text"]) == ("done", "So be it.")
        errors = {call["name"]: call["error"] for call in ended["tool_calls"]}
        assert errors == {
            f"{name}__hang": f"the MCP server {name} {LOST}" for name in ("child", "web")
        }
        for at, server in enumerate(servers[:2]):
            assert [note["key"] for note in server.notes("hang")] == [f"{message}:1:call_{at}"]
        stack.assert_no_traceback()
        assert await asyncio.to_thread(stack.worker.terminate) == 0
    told = json.loads(openai.requests[-1].body)["messages"]
    assert [LOST in str(turn["content"]) for turn in told if turn["role"] == "tool"] == [True, True]


async def test_a_call_of_a_killed_worker_is_called_again_by_the_same_key_where_it_may_be(
    own_redis: RedisServer, servers: Servers
) -> None:
    script = (calls(*NAMES), answer("stop", content="So be it."))
    async with running(own_redis, servers, *script) as (stack, _), caller(stack.url) as api:
        message = await api.accepted("Do it.", model="openai/m", tools=NAMES)
        for server in servers[:2]:
            await until_true(partial(hangs, server), within=WITHIN)
        stack.worker.kill()
        await asyncio.to_thread(stack.new_worker().start)
        await until_true(lambda: len(servers.web.notes("hang")) > 1, within=WITHIN)
        servers.web.kill()
        ended = (await api.http.get(f"/api/messages/{message}?wait=15")).json()
    assert (ended["status"], ended["text"]) == ("done", "So be it.")
    errors = {call["name"]: call["error"] for call in ended["tool_calls"]}
    assert "outcome unknown" in errors["child__hang"]
    assert LOST in errors["web__hang"]
    assert len(servers.child.notes("hang")) == 1
    assert {note["key"] for note in servers.web.notes("hang")} == {f"{message}:1:call_1"}

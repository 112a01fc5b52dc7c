"""MCP servers that die, come back, never come, never answer, or answer rubbish."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from rejoin.shared.settings_file import McpServer
from rejoin.worker.tools import mcp_connection, mcp_servers
from rejoin.worker.tools.bounded import Outcome
from rejoin.worker.tools.mcp_servers import serving
from rejoin.worker.tools.registry import Tools
from rejoin.worker.validation import Validation
from tests.support.cutting_proxy import cutting_proxy
from tests.support.mcp_serving import HttpServer, Served, Server, http_server, script, served
from tests.support.messages import until, until_true

LOST = "the MCP server t was lost before it answered: whether it did what it was asked is unknown"
AWAY = "the MCP server t is away; the call was not made"
WITHIN = 60.0


@pytest.fixture(params=["stdio", "http", "old"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    """The same server, reached by each way in turn."""
    if request.param == "stdio":
        yield Server(tmp_path)
    else:
        with http_server(tmp_path, *({request.param} - {"http"})) as running:
            yield running


async def test_a_server_killed_in_mid_call_fails_the_call_at_once_and_serves_again(
    server: Server,
) -> None:
    async with served(server.listed) as it:
        hanging = [asyncio.create_task(it.call("hang", call_id=f"call_{at}")) for at in range(3)]
        await until_true(lambda: len(server.notes("hang")) == len(hanging), within=WITHIN)
        server.kill()
        async with asyncio.timeout(10):
            assert {(await call).error for call in hanging} == {LOST}
        if isinstance(server, HttpServer):
            assert (await it.call("say", {"text": "?"})).error == AWAY
            await asyncio.to_thread(server.start)
        assert "t__say" in it.tools.names()
        await _again(it)
    assert len(server.notes("started")) == 2
    assert len(server.notes("hang")) == len(hanging)


async def _again(it: Served) -> None:
    async def answers() -> bool:
        return await it.call("say", {"text": "on"}) == Outcome("on")

    await until(answers, within=WITHIN)


async def test_a_child_that_died_while_nobody_called_is_started_again(tmp_path: Path) -> None:
    server = Server(tmp_path)
    async with served(server.listed) as it:
        server.kill()
        await until_true(lambda: len(server.notes("started")) > 1, within=WITHIN)
        await _again(it)


async def test_so_is_one_of_the_older_protocol_which_nothing_listens_to() -> None:
    async with served(script("pages")):
        [child] = _children("mcp_script.py")
        child.kill()
        await until_true(
            lambda: {one.pid for one in _children("mcp_script.py")} - {child.pid} != set(),
            within=WITHIN,
        )


async def test_a_request_that_fails_leaves_the_other_calls_alone(
    tmp_path: Path, unused_tcp_port: int
) -> None:
    with http_server(tmp_path) as server:
        async with cutting_proxy(server.port) as proxy:
            listed = server.listed.model_copy(update={"url": f"{proxy.url}/mcp"})
            async with served(listed) as it:
                other = asyncio.create_task(it.call("hang"))
                await until_true(lambda: bool(server.notes("hang")), within=WITHIN)
                proxy.target_port, before = unused_tcp_port, proxy.connections
                while proxy.connections < before + 2:  # a call that fails, and the look after it
                    assert (await it.call("say", {"text": "?"})).error in (LOST, None)
                proxy.target_port = server.port
                await _again(it)
                assert not other.done()
                other.cancel()
    await asyncio.wait([other])


async def test_a_session_that_the_server_forgot_is_opened_anew_for_the_same_call(
    tmp_path: Path,
) -> None:
    with http_server(tmp_path, "old") as server:
        async with served(server.listed) as it:
            assert await it.call("say", {"text": "one"}) == Outcome("one")
            server.kill()
            server.start()
            assert await it.call("add", {"a": 1, "b": 1}) == Outcome({"result": 2})
        assert len(server.notes("add")) == 1


async def test_a_server_that_is_away_at_first_gives_its_tools_when_it_comes(
    tmp_path: Path,
) -> None:
    server = HttpServer(tmp_path)
    try:
        async with served(server.listed) as it:
            assert it.tools.names() == []
            assert it.connection.error is not None
            await asyncio.to_thread(server.start)
            await until_true(lambda: "t__say" in it.tools.names(), within=WITHIN)
            await _again(it)
    finally:
        server.kill()


@pytest.mark.parametrize(
    ("listed", "said"),
    [
        (McpServer(command=["no-such-program"]), "there is no program no-such-program"),
        (McpServer(command=[sys.executable, "-c", "raise SystemExit(3)"]), "cannot be reached"),
        (script("rubbish"), "does not answer"),
        (script("silent"), "does not answer"),
        (McpServer(url="http://127.0.0.1:9/mcp"), "cannot be reached"),
    ],
    ids=["missing", "ends", "rubbish", "silent", "refuses"],
)
async def test_a_server_that_never_works_is_told_of_and_holds_nothing_up(
    listed: McpServer,
    said: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(mcp_connection, "OPEN_SECONDS", 2.0)
    async with asyncio.timeout(WITHIN), served(listed) as it:
        assert it.tools.names() == []
    assert said in caplog.text
    assert sum("is away" in one for one in caplog.messages) == 1


async def test_a_worker_waits_for_its_servers_no_longer_than_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Neither as it starts nor as it ends: one that opens is told to stop at once.
    monkeypatch.setattr(mcp_servers, "CLOSE_SECONDS", 3600.0)
    monkeypatch.setattr(mcp_connection, "OPEN_SECONDS", 3600.0)
    async with asyncio.timeout(WITHIN), served(script("silent"), ready_seconds=0.1) as it:
        assert not it.connection.tried.is_set()


async def test_a_call_without_an_answer_ends_with_its_tools_own_time() -> None:
    async with served(script("mute", timeout_seconds=0.5)) as it:
        assert (await it.call("call")).error == "timed out: no result within 0.5 seconds"


async def test_an_answer_that_is_no_result_is_an_error() -> None:
    async with served(script("wrong")) as it:
        assert (await it.call("call")).error == "what the MCP server t answered is no result"


async def test_a_flood_on_stderr_is_read_and_logged_at_a_bounded_rate(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "rejoin.worker.tools.mcp_said")
    async with served(Server(tmp_path).listed) as it:
        assert await it.call("flood") == Outcome("flooded")
        assert await it.call("say", {"text": "on"}) == Outcome("on")
        await until_true(lambda: "line 0" in caplog.text)
    assert sum("MCP server t: line" in one for one in caplog.messages) < 60


async def test_a_server_that_does_not_heed_its_end_is_killed_within_a_bound(
    tmp_path: Path,
) -> None:
    deaf = script("deaf")
    async with asyncio.timeout(20):
        async with served(deaf) as it:
            assert it.tools.names() == ["t__call"]
            [child] = _children("mcp_script.py")
    assert not child.is_running()


def test_a_worker_that_is_killed_takes_its_servers_with_it(tmp_path: Path) -> None:
    worker = subprocess.Popen(
        [sys.executable, "-c", _WORKER], stdout=subprocess.PIPE, cwd=Path.cwd()
    )
    try:
        assert worker.stdout is not None
        assert worker.stdout.readline() == b"there\n"
        [child] = _children("mcp_script.py", of=worker.pid)
        worker.kill()
        worker.wait(WITHIN)
        child.wait(WITHIN)
    finally:
        worker.kill()
        worker.wait(WITHIN)
        assert worker.stdout is not None
        worker.stdout.close()


_WORKER = """
import asyncio
from tests.support.mcp_serving import script, served

async def main():
    async with served(script("deaf")):
        print("there", flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_servers_are_closed_side_by_side_and_leave_nothing_behind(tmp_path: Path) -> None:
    tools, validation = Tools(), Validation()
    servers = {f"s{at}": script("pages") for at in range(4)}
    before = asyncio.all_tasks()
    async with serving(servers, tools, validation, ready_seconds=WITHIN):
        assert len(tools.names()) == 12
        assert len(_children("mcp_script.py")) == 4
    assert _children("mcp_script.py") == []
    assert asyncio.all_tasks() == before


def _children(named: str, *, of: int | None = None) -> list[psutil.Process]:
    """The children of a process, ours for one, that run a script of that name."""
    found = psutil.Process(of or os.getpid()).children()
    return [one for one in found if any(named in word for word in _command(one))]


def _command(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.NoSuchProcess:
        return []

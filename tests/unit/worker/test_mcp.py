"""MCP servers over both transports: their tools are listed, called, and follow what they say."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rejoin.shared.errors import ToolError
from rejoin.worker.tools.base import OnUnknownOutcome
from rejoin.worker.tools.bounded import Outcome
from rejoin.worker.tools.mcp import name_of
from rejoin.worker.tools.registry import Tools
from tests.support.mcp_serving import Server, http_server, script, served
from tests.support.messages import until_true
from tests.support.tools import PlainTool

NAMES = {
    "add",
    "count",
    "environment",
    "fail",
    "flood",
    "grow",
    "hang",
    "name_of",
    "picture",
    "say",
}


@pytest.fixture(params=["stdio", "http", "old"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    """The same server, reached by each way in turn."""
    if request.param == "stdio":
        yield Server(tmp_path)
    else:
        with http_server(tmp_path, *({request.param} - {"http"})) as running:
            yield running


async def test_a_servers_tools_are_listed_called_and_told_from_each_other(server: Server) -> None:
    heard = list[tuple[str, object]]()
    async with served(server.listed) as it:
        assert set(it.tools.names()) == {f"t__{name}" for name in NAMES}
        add = it.tools.find("t__add")
        assert add is not None
        assert add.description == "Add two numbers."
        assert set(add.parameters["properties"]) == {"a", "b"}  # type: ignore[call-overload]
        assert await it.call("add", {"a": 1, "b": 2}) == Outcome({"result": 3})
        assert await it.call("say", {"text": "wörld"}) == Outcome("wörld")
        picture = await it.call("picture")
        assert picture == Outcome("a word\n[image, image/png, 400 bytes]")
        failed = await it.call("fail")
        assert failed.error is not None
        assert "Error executing tool fail" in failed.error
        counted = await it.call("count", {"to": 2}, report=lambda *said: heard.append(said))
        assert counted == Outcome("counted")
    told = [{"progress": at, "total": 2, "message": f"at {at}"} for at in (1, 2)]
    assert heard == [("progress", one) for one in told]


async def test_each_call_bears_its_idempotency_key(server: Server) -> None:
    async with served(server.listed) as it:
        for call_id in ("call_1", "call_2", "call_1"):
            await it.call("add", {"a": 1, "b": 1}, call_id=call_id)
    keys = [note["key"] for note in server.notes("add")]
    assert keys == ["message:1:call_1", "message:1:call_2", "message:1:call_1"]


async def test_a_list_that_changed_is_listed_again(server: Server) -> None:
    async with served(server.listed) as it:
        await it.call("grow")
        await until_true(lambda: "t__grown" in it.tools.names(), within=20)
        assert "t__say" not in it.tools.names()
        assert await it.call("grown") == Outcome("new")


async def test_a_cancelled_call_is_cancelled_at_the_server(server: Server) -> None:
    async with served(server.listed) as it:
        call = asyncio.create_task(it.call("hang"))
        await until_true(lambda: bool(server.notes("hang")), within=20)
        call.cancel()
        await until_true(lambda: bool(server.notes("hang ended")), within=20)
        assert await it.call("say", {"text": "on"}) == Outcome("on")
    with pytest.raises(asyncio.CancelledError):
        await call


async def test_all_pages_of_a_list_are_read_and_one_without_end_is_left() -> None:
    async with served(script("pages")) as it:
        assert it.tools.names() == ["t__tool0", "t__tool1", "t__tool2"]
        assert await it.call("tool2") == Outcome("called")
    async with served(script("endless")) as it:
        assert len(it.tools.names()) == 100


async def test_tools_whose_schema_or_name_is_unfit_are_left_out_or_made_to_fit(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with served(script("schemas")) as it:
        assert it.tools.names() == ["t__fit", name_of("t", "ill named!")]
    for name in ("t__foreign", "t__no-schema"):
        assert sum(name in said for said in caplog.messages) == 1


async def test_a_tool_of_the_operators_own_is_not_replaced(
    caplog: pytest.LogCaptureFixture,
) -> None:
    own = PlainTool("t__call")
    async with served(script("mute"), tools=Tools([own])) as it:
        assert it.tools.find("t__call") is own
    assert "there is another t__call" in caplog.text


async def test_a_server_has_a_clean_environment_and_what_its_table_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    plain = Server(tmp_path).listed
    async with served(plain.model_copy(update={"env": {"MINE": "1"}})) as it:
        names = str((await it.call("environment")).result).split()
    assert "MINE" in names
    assert "OPENAI_API_KEY" not in names


async def test_the_table_says_who_is_asked_and_what_an_unknown_outcome_means(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    said = {"needs_approval": ["say", "sya"], "on_unknown_outcome": "hints", "timeout_seconds": 3.0}
    async with served(Server(tmp_path).listed.model_copy(update=said)) as it:
        add, say = it.tools.find("t__add"), it.tools.find("t__say")
        assert add is not None
        assert say is not None
        assert (add.needs_approval, say.needs_approval) == (False, True)
        assert add.on_unknown_outcome is OnUnknownOutcome.RETRY
        assert say.on_unknown_outcome is OnUnknownOutcome.FAIL
        assert add.timeout_seconds == 3
    assert "needs_approval: there is no tool sya" in caplog.text


async def test_a_servers_own_hints_count_for_nothing_unless_the_table_says_so(
    tmp_path: Path,
) -> None:
    async with served(Server(tmp_path).listed) as it:
        add = it.tools.find("t__add")
        assert add is not None
        assert add.on_unknown_outcome is OnUnknownOutcome.FAIL


async def test_arguments_are_checked_before_the_server_sees_them(tmp_path: Path) -> None:
    server = Server(tmp_path)
    async with served(server.listed) as it:
        add = it.tools.find("t__add")
        assert add is not None
        with pytest.raises(ToolError, match=r"do not fit: \$\.a: 'x' is not of type 'integer'"):
            add.check({"a": "x", "b": 1})
        by_pattern = await it.call("name_of", {"name": "ABC"})
        assert by_pattern.error is not None
        assert "does not match" in by_pattern.error
        assert await it.call("name_of", {"name": "abc"}) == Outcome("abc")


def test_names_that_models_cannot_be_told_are_made_to_fit_each_by_itself() -> None:
    assert name_of("files", "read-it") == "files__read-it"
    odd = [name_of("t", name) for name in ("a b", "a.b", "a" * 80, "a" * 81, "ä", "")]
    assert len(set(odd)) == len(odd)
    assert all(len(name) <= 64 and name.isascii() and "." not in name for name in odd)
    assert name_of("t", "a b") == odd[0]


def test_a_worker_without_servers_does_not_load_the_package() -> None:
    said = "import sys, rejoin.worker.__main__; print('mcp' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", said], capture_output=True, text=True, timeout=60)
    assert done.stdout == "False\n", done.stderr

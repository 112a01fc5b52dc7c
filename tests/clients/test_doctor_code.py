"""`rejoin doctor` loads the operator's own code as a worker would, and lists what it gives."""

from pathlib import Path

import pytest

from rejoin.client.commands import process_checks
from rejoin.shared.redis_check import Grade
from tests.clients.test_doctor import lines, verdict
from tests.clients.test_doctor_parts import doctor

TOOLS = """
from rejoin.worker.tools import tool

print("loaded")

@tool
def look(at: int) -> int:
    "Looks."
    return at

@tool(needs_approval=True)
def buy(what: str) -> str:
    "Buys."
    return what
"""
AGENTS = """
from rejoin.worker.agents import agent

@agent
async def parrot(conversation):
    yield "again"
"""
Told = dict[str, tuple[Grade, str]]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory that doctor is started in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


async def told() -> Told:
    """What a worker says of the code that the settings name, by area."""
    found = [found async for found in process_checks.own_code()]
    return {area: (finding.grade, finding.sentence) for area, finding in found}


async def test_tools_are_listed_and_those_that_ask_first(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "my_tools.py").write_text(TOOLS)
    monkeypatch.setenv("REJOIN_TOOLS", "my_tools.py")
    assert await told() == {
        "tools": (Grade.OK, "buy (asks for approval), look"),
        "agents": (Grade.OK, "none: REJOIN_AGENTS is not set"),
    }


async def test_agents_are_listed_as_models(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "my_agents.py").write_text(AGENTS)
    monkeypatch.setenv("REJOIN_AGENTS", "my_agents.py")
    assert (await told())["agents"] == (Grade.OK, "agent/parrot")


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import nobody_has_this", "No module named 'nobody_has_this'"),
        ("x = 1", "has no tool"),
        ("exit()", "could not be imported"),
    ],
)
async def test_code_that_does_not_load_is_broken(
    code: str, said: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "my_tools.py").write_text(code)
    monkeypatch.setenv("REJOIN_TOOLS", "my_tools.py")
    grade, sentence = (await told())["tools"]
    assert grade is Grade.BROKEN
    assert "REJOIN_TOOLS: " in sentence
    assert said in sentence


def test_code_that_ends_the_process_as_it_loads_is_broken(tmp_path: Path) -> None:
    (tmp_path / "my_tools.py").write_text("import os\nos._exit(0)")
    done = doctor(tmp_path, REJOIN_TOOLS="my_tools.py")
    assert "it says nothing" in lines(done, "broken", "tools and agents")[0]
    assert "it says nothing" in lines(done, "broken", "worker")[0]


async def test_code_that_hangs_as_it_loads_is_broken_within_the_bound(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "my_tools.py").write_text("import time\ntime.sleep(60)")
    monkeypatch.setenv("REJOIN_TOOLS", "my_tools.py")
    monkeypatch.setattr(process_checks, "_CHECK_SECONDS", 3)
    assert await told() == {"tools and agents": (Grade.BROKEN, "no answer within 3 s")}


def test_doctor_says_of_each_what_there_is(tmp_path: Path) -> None:
    (tmp_path / "my_tools.py").write_text("x = 1")
    done = doctor(tmp_path, REJOIN_TOOLS="my_tools.py")
    assert "has no tool" in lines(done, "broken", "tools")[0]
    assert "REJOIN_TOOLS" in lines(done, "broken", "worker")[0]
    assert verdict(done) == (1, "2 to mend")


def test_without_any_it_says_which_settings_name_them(tmp_path: Path) -> None:
    done = doctor(tmp_path)
    assert lines(done, "ok", "tools and agents") == [
        "none: REJOIN_TOOLS and REJOIN_AGENTS are not set"
    ]

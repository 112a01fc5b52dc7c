"""Declaring agents, and loading them from files and modules."""

from collections.abc import AsyncGenerator, Callable
from pathlib import Path

import pytest

from rejoin.shared.errors import SettingsError
from rejoin.worker.agents import Agent, Run, Said, agent
from rejoin.worker.agents.loading import load_agents
from rejoin.worker.agents.registry import Agents

Write = Callable[[str, str], Path]

MINE = """
from rejoin.worker.agents import agent

@agent
async def mine(run):
    yield "so"
"""


async def words(run: Run) -> AsyncGenerator[Said, None]:
    yield "so"


pytestmark = pytest.mark.usefixtures("python_as_it_was")


def refused(*entries: str) -> str:
    with pytest.raises(SettingsError) as raised:
        load_agents(entries)
    said = str(raised.value)
    assert said.startswith("REJOIN_AGENTS: ")
    return said


def test_an_agent_has_its_functions_name_or_its_own() -> None:
    assert agent(words).model == "agent/words"
    assert agent(name="my-agent_2.0")(words).model == "agent/my-agent_2.0"


async def test_an_agent_is_called_as_its_function() -> None:
    made = agent(words)
    assert [said async for said in made(None)] == ["so"]  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["", "a/b", "a b", "ä", "x" * 65, "a?b"])
def test_a_name_that_no_model_can_have_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="1 to 64"):
        agent(name=name)(words)


async def coroutine(run: Run) -> str:
    return "so"


def plain(run: Run) -> str:
    return "so"


async def of_none() -> AsyncGenerator[Said, None]:
    yield "so"


async def of_two(run: Run, other: int) -> AsyncGenerator[Said, None]:
    yield "so"


@pytest.mark.parametrize("function", [coroutine, plain, of_none, of_two, 7, Agent])
def test_what_is_no_async_generator_of_one_argument_is_refused(function: object) -> None:
    with pytest.raises(TypeError, match="an agent"):
        agent(function)  # type: ignore[call-overload]


def test_the_agents_of_files_and_modules_are_loaded(write: Write) -> None:
    write("users_first.py", MINE)
    path = write("second.py", MINE.replace("mine", "other") + "from users_first import mine\n")
    found = load_agents(["users_first", str(path)])
    assert sorted(one.name for one in found) == ["mine", "other"]
    agents = Agents(found)
    assert agents.names() == ["mine", "other"]
    assert agents.find("agent/mine") is not None
    assert agents.find("mine") is None
    assert agents.find("agent/nobody") is None


def test_two_of_one_name_are_refused_by_their_places(write: Write) -> None:
    said = refused(str(write("a.py", MINE)), str(write("b.py", MINE)))
    assert "called mine" in said
    assert "a.py:4" in said
    assert "b.py:4" in said


def test_a_file_named_twice_is_loaded_once(write: Write) -> None:
    path = str(write("a.py", MINE))
    assert len(load_agents([path, path])) == 1


def test_what_has_no_agent_or_cannot_be_imported_is_named(write: Write) -> None:
    assert "has no agent" in refused(str(write("empty.py", "")))
    assert "no file" in refused("nowhere.py")
    assert "ZeroDivisionError" in refused(str(write("broken.py", "1 / 0")))
    assert "an agent is an async generator" in refused(
        str(write("wrong.py", MINE.replace('yield "so"', "pass")))
    )

"""Loading tools: from files and modules, each once, and what is said where it cannot be done."""

from collections.abc import Callable
from pathlib import Path

import pytest

from rejoin.shared.errors import SettingsError
from rejoin.worker.tools.loading import load_tools
from rejoin.worker.user_code import load_module

Write = Callable[[str, str], Path]

SEARCH = """
from rejoin.worker.tools import tool

@tool
def search(query: str) -> str:
    "Search."
    return query
"""


pytestmark = pytest.mark.usefixtures("python_as_it_was")


def names(*entries: str) -> list[str]:
    return [tool.name for tool in load_tools(entries)]


def refused(*entries: str) -> str:
    with pytest.raises(SettingsError) as raised:
        load_tools(entries)
    said = str(raised.value)
    assert said.startswith("REJOIN_TOOLS: ")
    return said


def test_nothing_named_is_no_tool() -> None:
    assert names() == []


def test_a_file_is_looked_for_from_the_working_directory_on(write: Write) -> None:
    write("sub/tools.py", SEARCH)
    assert names("sub/tools.py") == ["search"]


def test_a_file_may_be_named_by_its_whole_path(write: Write) -> None:
    assert names(str(write("tools.py", SEARCH))) == ["search"]


def test_a_module_of_the_working_directory_is_found(write: Write) -> None:
    write("users_package/__init__.py", "")
    write("users_package/tools.py", SEARCH)
    assert names("users_package.tools") == ["search"]


def test_two_files_of_one_name_are_two_modules(write: Write) -> None:
    write("a/tools.py", SEARCH)
    write("b/tools.py", SEARCH.replace("def search", "def find"))
    assert names("a/tools.py", "b/tools.py") == ["search", "find"]


def test_a_file_named_twice_is_run_once(write: Write) -> None:
    path = write("tools.py", SEARCH)
    assert names("tools.py", str(path), "./tools.py") == ["search"]
    assert load_module("tools.py", setting="S") is load_module(str(path), setting="S")


def test_a_tool_that_a_file_imports_from_beside_it_is_registered_once(write: Write) -> None:
    write("sub/users_search.py", SEARCH)
    write("sub/tools.py", "from users_search import search\nalias = search\n")
    assert names("sub/tools.py") == ["search"]


def test_a_file_beside_hides_nothing_of_pythons_own(write: Write) -> None:
    write("sub/colorsys.py", "raise RuntimeError('hidden')")
    write("sub/tools.py", f"import colorsys\n{SEARCH}")
    assert names("sub/tools.py") == ["search"]


def test_a_dataclass_with_deferred_hints_can_be_loaded(write: Write) -> None:
    write(
        "tools.py",
        """
        from __future__ import annotations
        from dataclasses import dataclass
        from rejoin.worker.tools import Call, tool

        @dataclass
        class Place:
            city: str | None = None

        @tool
        def search(place: Place, call: Call) -> Place:
            "Search."
            return place
        """,
    )
    (found,) = load_tools(["tools.py"])
    found.check({"place": {"city": "Rome"}})


def test_a_missing_file_is_named_with_where_it_was_looked_for(write: Write) -> None:
    said = refused("no/tools.py")
    assert "there is no file no/tools.py" in said
    assert str(Path.cwd() / "no" / "tools.py") in said


@pytest.mark.parametrize(
    "name", ["users_nothing", "users_nothing.tools", "no tools", "a..b", "a:b"]
)
def test_a_missing_module_is_named(name: str) -> None:
    assert f"there is no module {name}" in refused(name)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("1 +", "SyntaxError: invalid syntax"),
        ("\n\nimport users_missing", "ModuleNotFoundError: No module named 'users_missing'"),
        ("raise RuntimeError('broken')", "RuntimeError: broken"),
        ("raise SystemExit", "SystemExit"),
        (SEARCH.replace("query: str", "*query: str"), "TypeError: the tool search: "),
    ],
)
def test_a_file_that_fails_is_named_with_the_reason_and_the_line(
    write: Write, text: str, why: str
) -> None:
    path = write("tools.py", text)
    for _ in range(2):
        said = refused("tools.py")
        assert "tools.py could not be imported, at " in said
        assert why in said
    if "Error" not in text:
        return
    assert f"{path}:" in said


def test_a_function_that_can_be_no_tool_is_named_by_its_own_line(write: Write) -> None:
    path = write("tools.py", SEARCH.replace("query: str", "**query: str"))
    assert f"could not be imported, at {path}:" in refused("tools.py")


def test_a_module_whose_own_import_fails_is_not_called_missing(write: Write) -> None:
    write("users_module.py", "import users_missing")
    said = refused("users_module")
    assert "users_module could not be imported" in said
    assert "users_missing" in said


def test_a_file_without_a_tool_is_named(write: Write) -> None:
    write("tools.py", "def search(query: str) -> str: return query")
    assert "tools.py has no tool: decorate" in refused("tools.py")


def test_two_tools_of_one_name_are_named_with_their_places(write: Write) -> None:
    one, other = write("a.py", SEARCH), write("b.py", SEARCH)
    said = refused("a.py", "b.py")
    assert "two tools are called search" in said
    assert f"{one}:4 (of a.py)" in said
    assert f"{other}:4 (of b.py)" in said

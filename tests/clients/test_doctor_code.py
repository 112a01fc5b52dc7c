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


def test_tools_are_listed_and_those_that_ask_first(tmp_path: Path) -> None:
    (tmp_path / "my_tools.py").write_text(TOOLS)
    done = doctor(tmp_path, REJOIN_TOOLS="my_tools.py")
    assert lines(done, "ok", "tools") == ["buy (asks for approval), look"]
    assert verdict(done) == (0, "nothing to mend")


def test_without_any_it_says_which_setting_names_them(tmp_path: Path) -> None:
    done = doctor(tmp_path)
    assert lines(done, "ok", "tools") == ["none: REJOIN_TOOLS is not set"]


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import nobody_has_this", "No module named 'nobody_has_this'"),
        ("x = 1", "has no tool"),
        ("exit()", "could not be imported"),
    ],
)
def test_code_that_does_not_load_is_broken(code: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "my_tools.py").write_text(code)
    done = doctor(tmp_path, REJOIN_TOOLS="my_tools.py")
    (sentence,) = lines(done, "broken", "tools")
    assert "REJOIN_TOOLS: " in sentence
    assert said in sentence
    assert verdict(done)[0] == 1


async def test_code_that_hangs_as_it_loads_is_broken_within_the_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_tools.py").write_text("import time\ntime.sleep(60)")
    monkeypatch.setattr(process_checks, "_CHECK_SECONDS", 3)
    monkeypatch.setenv("REJOIN_TOOLS", str(tmp_path / "my_tools.py"))
    found = [found async for found in process_checks.own_code()]
    assert [(area, finding.grade) for area, finding in found] == [
        ("tools and agents", Grade.BROKEN)
    ]

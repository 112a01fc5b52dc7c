"""`rejoin doctor` opens the MCP servers that the settings file lists, and says what they give."""

import json
import sys
from pathlib import Path

import pytest

from rejoin.client.commands import process_checks
from rejoin.shared.redis_check import Grade
from tests.clients.test_doctor import lines
from tests.clients.test_doctor_parts import doctor
from tests.support.mcp_serving import script

FILE = f"""
[mcp.good]
command = {json.dumps(script("pages").command)}
needs_approval = ["tool1"]

[mcp.misspelt]
command = {json.dumps(script("pages").command)}
needs_approval = ["tol1"]

[mcp.ends]
command = {json.dumps([sys.executable, "-c", "raise SystemExit(3)"])}

[mcp.nowhere]
url = "http://127.0.0.1:9/mcp"
"""


async def test_each_server_is_opened_and_what_is_wrong_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rejoin.toml").write_text(FILE, encoding="utf-8")
    monkeypatch.setenv("REJOIN_SETTINGS_FILE", str(tmp_path / "rejoin.toml"))
    monkeypatch.setattr(process_checks, "_CHECK_SECONDS", 60)
    found = {area: one async for area, one in process_checks.own_code()}
    told = {area: one.grade for area, one in found.items() if area.startswith("mcp")}
    assert told == {
        "mcp good": Grade.OK,
        "mcp misspelt": Grade.BROKEN,
        "mcp ends": Grade.BROKEN,
        "mcp nowhere": Grade.BROKEN,
    }
    assert found["mcp good"].sentence == "answers, and has 3 tools: tool0, tool1, tool2"
    assert "needs_approval names what it has not: tol1" in found["mcp misspelt"].sentence
    assert "look at its command" in found["mcp ends"].sentence
    assert "look at its url" in found["mcp nowhere"].sentence


def test_a_file_that_is_wrong_is_broken_and_named(tmp_path: Path) -> None:
    (tmp_path / "rejoin.toml").write_text("[mcp.a]\nurl = 'ftp://a'", encoding="utf-8")
    done = doctor(tmp_path, REJOIN_SETTINGS_FILE="rejoin.toml")
    assert "[mcp.a] url" in lines(done, "broken", "settings file")[0]
    assert "[mcp.a] url" in lines(done, "broken", "worker")[0]

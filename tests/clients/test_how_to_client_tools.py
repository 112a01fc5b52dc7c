"""The how-to on tools that the client runs: its program, as it stands there."""

import asyncio
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.clients.commands import WITHIN, environment
from tests.clients.tool_stack import MODEL, ToolStack, calling, saying
from tests.house.tree import ROOT

HOW_TO = ROOT / "docs" / "how-to" / "client-tools.md"


def program(made: ToolStack) -> str:
    found = re.search(r"```python\n(.*?)```", HOW_TO.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    code = found[1].replace("http://127.0.0.1:8000", made.stack.url)
    return code.replace("openai/gpt-5-mini", MODEL)


@pytest.mark.parametrize(
    ("path", "told"),
    [("notes.txt", "3"), ("nobody.txt", "FileNotFoundError")],
)
async def test_the_program_runs_its_tool_and_the_model_goes_on(
    path: str, told: str, made: ToolStack, tmp_path: Path
) -> None:
    (tmp_path / "notes.txt").write_text("one two three")
    twice: list[tuple[str, str, dict[str, object]]] = [
        ("c1", "count_words", {"path": path}),
        ("c2", "count_words", {"path": "notes.txt"}),
    ]
    made.provider.play(calling(*twice), saying("That many."))
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", program(made)],
        capture_output=True,
        timeout=WITHIN,
        cwd=tmp_path,
        env=environment(tmp_path, {}),
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, b"That many.\n"), done.stderr
    first, second = made.given()
    assert told in str(first)
    assert json.loads(str(second)) == 3
    offered = made.provider.requests[0].json["tools"]
    assert isinstance(offered, list)
    assert [tool["function"]["name"] for tool in offered] == ["count_words"]

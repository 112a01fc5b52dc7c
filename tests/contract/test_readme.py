"""curl, as the README shows it."""

import asyncio
import json
import re
from pathlib import Path

from tests.support.processes import Stack

README = Path(__file__).parents[2] / "README.md"
SAID = "Every token once, in order."
BOUND_SECONDS = 30


def blocks() -> list[str]:
    """The shell blocks of the section that promises to be tested."""
    section = README.read_text(encoding="utf-8").split("## Use it")[1].split("\n## ")[0]
    return re.findall(r"```sh\n(.*?)```", section, re.DOTALL)


async def run(script: str, url: str, folder: Path) -> str:
    """Run a block against the server under test; return what it printed."""
    process = await asyncio.create_subprocess_exec(
        "bash", "-euo", "pipefail", "-c", script.replace("http://127.0.0.1:8000", url),
        cwd=folder, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(BOUND_SECONDS):
        out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return out.decode()


def events(output: str) -> list[tuple[str, dict[str, object]]]:
    """The events of all streams that a block printed, in order."""
    found = re.findall(r"^event: (\w+)\ndata: (.*)$", output, re.MULTILINE)
    return [(name, json.loads(fields)) for name, fields in found]


def text(of: list[tuple[str, dict[str, object]]]) -> str:
    """Their text, joined."""
    return "".join(str(fields["text"]) for name, fields in of if name == "text")


def test_the_readme_still_has_its_four_blocks() -> None:
    assert len(blocks()) == 4


async def test_the_readmes_stream_is_the_answer(stack: Stack, tmp_path: Path) -> None:
    seen = events(await run(blocks()[0], stack.url, tmp_path))
    assert [name for name, _ in seen][0 :: len(seen) - 1] == ["start", "done"]
    assert text(seen) == SAID


async def test_the_readmes_second_reader_gets_the_rest(stack: Stack, tmp_path: Path) -> None:
    output = await run(blocks()[1], stack.url, tmp_path)
    seen = events(output)
    first_end = [name for name, _ in seen].index("done") + 1
    assert text(seen[:first_end]) == SAID
    assert text(seen[first_end:]) == "once, in order."
    snapshot = json.loads(output.rsplit("\n", 1)[1])
    assert (snapshot["status"], snapshot["text"]) == ("done", SAID)


async def test_the_readmes_cancel_stops_it(stack: Stack, tmp_path: Path) -> None:
    script = blocks()[2] + 'curl -s "http://127.0.0.1:8000/api/messages/$ID?wait=10"'
    output = await run(script, stack.url, tmp_path)
    assert json.loads(output[output.rindex('{"id"') :])["status"] == "cancelled"


async def test_the_readmes_conversation_branches(stack: Stack, tmp_path: Path) -> None:
    output = await run(blocks()[3], stack.url, tmp_path)
    conversation = json.loads(output)
    texts = [message["text"] for message in conversation["messages"]]
    assert texts == [*["A first turn."] * 2, *["Another second turn."] * 2]
    assert [len(message["siblings"]) for message in conversation["messages"]] == [1, 2, 2, 1]
    listed = json.loads((tmp_path / "list.json").read_text(encoding="utf-8"))
    assert conversation["id"] in [one["id"] for one in listed["conversations"]]

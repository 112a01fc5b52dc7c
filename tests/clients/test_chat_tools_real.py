"""`rejoin chat` and `answer` with a real worker: a tool that needs approval, to its end."""

import asyncio
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.clients.commands import Running, run, running
from tests.clients.tool_stack import MODEL, ToolStack, calling, saying

CHAT = ("chat", "Buy tea.", "--model", MODEL, "--tool", "buy", "--tool", "price")
BUY = calling(("c1", "buy", {"what": "tea"}), ("c2", "price", {"what": "tea"}))


def port(made: ToolStack) -> dict[str, Any]:
    return {"REJOIN_PORT": str(made.stack.api.port)}


async def chatting(
    made: ToolStack, directory: Path, *steps: Callable[[Running], object]
) -> tuple[int, str, str]:
    """`rejoin chat` at a terminal: exit code, what stands there, and what is on stderr."""

    def talk() -> tuple[int, str, str]:
        command = running(directory, *CHAT, terminal=True, keyboard=True, **port(made))
        with command as at_terminal:
            for step in steps:
                step(at_terminal)
            return at_terminal.wait(), at_terminal.shown(), at_terminal.said

    return await asyncio.to_thread(talk)


def until_shown(part: str) -> Callable[[Running], object]:
    return lambda command: command.until(lambda: part in command.shown())


def typed(line: str) -> Callable[[Running], object]:
    return lambda command: command.type(line)


async def test_a_tool_is_approved_at_the_terminal(made: ToolStack, tmp_path: Path) -> None:
    made.provider.play(BUY, saying("Bought."))

    def deliver(command: Running) -> None:
        command.until(lambda: "buy: progress" in command.shown())
        made.deliver()

    question = 'approve buy {"what":"tea"}? [y/N] '
    code, stands, said = await chatting(
        made, tmp_path, until_shown(question), typed("y\n"), deliver
    )
    assert (code, made.bought) == (0, ["tea"])
    lines = re.sub(r"\x1b\[\d+m", "", stands).splitlines()
    assert lines[-4:] == [
        f"{question}y",
        'buy: progress: {"of":"tea","part":0.5}',
        'buy = {"bought":"tea"}',
        "Bought.",
    ]
    assert "price = 3" in lines[:-4]
    assert "taken back" not in said
    assert made.given() == ['{"bought":"tea"}', "3"]


async def test_a_tool_is_refused_at_the_terminal(made: ToolStack, tmp_path: Path) -> None:
    made.provider.play(BUY, saying("Then not."))
    steps = (until_shown("[y/N] "), typed("n\n"))
    code, stands, _ = await chatting(made, tmp_path, *steps)
    assert (code, made.bought) == (0, [])
    assert "buy failed: " in stands
    assert stands.endswith("Then not.\n")


async def test_an_interrupt_at_the_question_cancels(made: ToolStack, tmp_path: Path) -> None:
    made.provider.play(BUY)
    code, stands, said = await chatting(made, tmp_path, until_shown("[y/N] "), Running.interrupt)
    assert (code, made.bought) == (130, [])
    assert "buy failed: " in stands
    assert "the answer ended early: cancelled" in said


async def test_a_message_left_waiting_by_a_pipe_is_answered_and_read_on(
    made: ToolStack, tmp_path: Path
) -> None:
    made.provider.play(BUY, saying("Bought."))
    made.deliver()
    left = await asyncio.to_thread(run, tmp_path, *CHAT, **port(made))
    assert (left.returncode, made.bought) == (3, [])
    found = re.search(r"to answer: rejoin answer (\S+) (\S+) --approve", left.stderr.decode())
    assert found is not None
    answer = ("answer", found[1], found[2])
    told = await asyncio.to_thread(run, tmp_path, *answer, "--approve", **port(made))
    assert told.returncode == 0
    read = await asyncio.to_thread(run, tmp_path, "tail", found[1], **port(made))
    assert (read.returncode, read.stdout, made.bought) == (0, b"Bought.", ["tea"])
    late = await asyncio.to_thread(run, tmp_path, *answer, "--refuse", **port(made))
    assert late.returncode == 1
    unknown = ("answer", found[1], "nobody", "--approve")
    assert (await asyncio.to_thread(run, tmp_path, *unknown, **port(made))).returncode == 1


async def test_a_tool_that_no_worker_has_is_refused(made: ToolStack, tmp_path: Path) -> None:
    command = ("chat", "x", "--model", MODEL, "--tool", "steal")
    refused = await asyncio.to_thread(run, tmp_path, *command, **port(made))
    assert (refused.returncode, refused.stdout) == (2, b"")
    assert b"steal" in refused.stderr

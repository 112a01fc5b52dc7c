"""Asks at the terminal whether a tool may run, and gives the server the answer."""

import asyncio
import os
import sys
import termios
from types import TracebackType
from typing import Final, Self

import click

from rejoin.client.client import Client
from rejoin.client.commands.printing import note, printable
from rejoin.client.commands.tool_lines import ToolLines, shown
from rejoin.shared.errors import Conflict, RejoinError
from rejoin.shared.fold import Message
from rejoin.shared.tool_calls import CallState, calls_of, open_calls
from rejoin.shared.tool_events import Needs

_YES: Final = frozenset({"y", "yes"})
_NO: Final = frozenset({"", "n", "no"})
# After which of them a call may begin to wait, or be the last that does not.
_TURNS: Final = frozenset({"start", "reset", "tool_waiting", "tool_result", "tool_error"})
_LINE_BYTES: Final = 4096  # the longest that a terminal gives


class Asker:
    """Asks about a message's calls that wait for approval, one after another.

    `at`: options that lead `rejoin answer` to the server. With stdin no terminal nobody is asked:
    `heed` then says that the message is left waiting. So does `left` where stdin is closed at a
    question; the task that entered the `async with` is cancelled then.
    """

    def __init__(self, client: Client, message_id: str, at: str = "") -> None:
        self.left = False
        self._client = client
        self._message_id = message_id
        self._at = at
        self._labels = ToolLines()
        self._settled: set[tuple[str, int]] = set()
        self._asking: asyncio.Task[None] | None = None
        self._answers: list[asyncio.Task[None]] = []
        self._in_question = False
        self._withdrawn = False
        self._owner: asyncio.Task[object] | None = None

    def withdraw(self) -> None:
        """Take back a question: something happened, and somebody else may have answered it."""
        self._withdrawn = self._asking is not None
        if self._asking is not None:
            self._asking.cancel()
        if self._in_question:
            _write("\n")
            self._in_question = False
        self._asking = None

    def heed(self, event: str, message: Message) -> bool:
        """Look at a message after an event of that name; return whether to leave it waiting.

        Asks once nothing of the message runs any more.
        """
        if event not in _TURNS and not self._withdrawn:
            return False  # an answer of 10,000 words is not looked through at each of them
        calls = open_calls(message)
        if not calls or not all(call.waits and not call.started for call in calls):
            return False
        self._labels = ToolLines()
        for call in calls_of(message):
            self._labels.label(call.tool_call_id, call.name)
        if not sys.stdin.isatty():
            self._tell(calls)
            self.left = True
            return True
        new = [call for call in calls if (call.tool_call_id, call.asked) not in self._settled]
        if new:
            self._asking = asyncio.ensure_future(self._ask_each(new))
        return False

    async def __aenter__(self) -> Self:
        self._owner = asyncio.current_task()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        begun = [*self._answers, *([] if self._asking is None else [self._asking])]
        self.withdraw()
        for task in begun:
            task.cancel()
        await asyncio.gather(*begun, return_exceptions=True)

    async def _ask_each(self, calls: list[CallState]) -> None:
        for at, call in enumerate(calls):
            approve = None
            if call.waits is Needs.APPROVAL:
                try:
                    approve = await self._asked(call)
                except EOFError:
                    self._leave(calls[at:])
                    return
            self._settled.add((call.tool_call_id, call.asked))
            if approve is None:
                self._tell([call])
                continue
            answer = asyncio.ensure_future(self._answer(call, approve=approve))
            self._answers.append(answer)
            # What the answer brings about may come before the server's word for it.
            await asyncio.shield(answer)

    def _leave(self, calls: list[CallState]) -> None:
        _write("\n")
        self._in_question = False
        self._tell(calls)
        self.left = True
        if self._owner is not None:
            self._owner.cancel()

    async def _asked(self, call: CallState) -> bool:
        label = self._labels.label(call.tool_call_id, call.name)
        # What was typed before the question is no answer to it.
        termios.tcflush(sys.stdin.fileno(), termios.TCIFLUSH)
        what = f"{label} {shown(call.arguments)}"
        if call.again:
            what = f"another run of {what} (what the one before did is unknown)"
        while True:
            _write(f"approve {what}? [y/N] ")
            self._in_question = True
            said = (await _line()).strip().lower()
            self._in_question = False
            if said in _YES or said in _NO:
                return said in _YES

    async def _answer(self, call: CallState, *, approve: bool) -> None:
        try:
            await self._client.answer_tool(self._message_id, call.tool_call_id, approve=approve)
        except Conflict as error:
            note(f"too late: {printable(str(error))}")
        except RejoinError as error:
            note(f"not answered: {printable(str(error))}")
            self._tell([call])

    def _tell(self, calls: list[CallState]) -> None:
        """Say how each of these can be answered from elsewhere."""
        for call in calls:
            how = "--approve (or --refuse)"
            if call.waits is Needs.RESULT:
                how = "--result JSON (or --error TEXT)"
            label = self._labels.label(call.tool_call_id, call.name)
            command = f"rejoin answer {self._message_id} {call.tool_call_id}{self._at}"
            note(f"{label} waits; to answer: {printable(command)} {how}")


def _write(text: str) -> None:
    """Write on the terminal; where stdout is none it has the answer alone."""
    click.echo(text, nl=False, err=not sys.stdout.isatty())


async def _line() -> str:
    """Return the next line of the terminal; to be cancelled, as a thread in `input` is not.

    Raises:
        EOFError: it was closed, by Ctrl-D say.
    """
    loop = asyncio.get_running_loop()
    line: asyncio.Future[bytes] = loop.create_future()
    terminal = sys.stdin.fileno()

    def read() -> None:
        if not line.done():
            try:
                line.set_result(os.read(terminal, _LINE_BYTES))
            except OSError as error:
                line.set_exception(error)

    loop.add_reader(terminal, read)
    try:
        said = await line
    except OSError as error:
        raise EOFError from error
    finally:
        loop.remove_reader(terminal)
    if not said:
        raise EOFError
    return said.decode(errors="replace")

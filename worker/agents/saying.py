"""What an agent yields becomes events of the log: checked, counted, within its bounds."""

from collections.abc import Callable
from typing import Final

from rejoin.shared.events import Event, FinishReason, Reasoning, Text
from rejoin.shared.events import Step as StepEvent
from rejoin.shared.tool_calls import CallState
from rejoin.shared.tool_events import Data, ToolCall, ToolError, ToolResult, ToolStart
from rejoin.worker.agents.calling import MOST_ARGUMENT_BYTES, AgentCalls
from rejoin.worker.agents.earlier import OWN
from rejoin.worker.agents.notes import call_note, told
from rejoin.worker.agents.words import Step
from rejoin.worker.bill import Bill
from rejoin.worker.called import CallNames, told_of
from rejoin.worker.progress import Called, Progress
from rejoin.worker.providers import base
from rejoin.worker.step import Step as Call
from rejoin.worker.stopping import Stop, Stopped
from rejoin.worker.takeover import private_note
from rejoin.worker.tools.plain import NotPlain, plain
from rejoin.worker.whole_text import WholeText
from rejoin.worker.writer import Writer

MOST_CHECKPOINT_BYTES: Final = 262_144

_MOST_NAME_CHARS: Final = 200
_MOST_TEXT_CHARS: Final = 65_536  # of one event


class Unsayable(Exception):
    """An agent yielded what no log can hold; the text says what, after the agent's name."""


class Sayings:
    """One run's way into the log. `call` is the present step's, as far as it came."""

    def __init__(
        self,
        writer: Writer,
        progress: Progress,
        bill: Bill,
        call: Call,
        calls: AgentCalls,
        *,
        most_bytes: int,
    ) -> None:
        self._writer = writer
        self._progress = progress
        self._bill = bill
        self._call = call
        self._calls = calls
        self._most_bytes = most_bytes
        self._text, self._reasoning = WholeText(), WholeText()
        self._names = CallNames(progress.call_ids)
        self._own: dict[str, CallState] = {}  # its own tools' calls, by the ids that it gave them
        self._shown_chars: int | None = None

    def shows(self, chars: int) -> None:
        """Note that a model is shown so much, should the worker be lost before it says the rest."""
        self._shown_chars = chars

    async def take(self, said: object) -> None:
        """Write what was said.

        Raises:
            Unsayable: it is nothing that an agent may say.
            Stopped: the log is full, or the message is cancelled after this step.
            LogRefused: the log takes no more.
        """
        match said:
            case str():
                await self._pieces(said, self._text, self._say)
            case Text():
                await self._pieces(_string(said.text, "text"), self._text, self._say)
            case Reasoning():
                text = _string(said.text, "reasoning")
                await self._pieces(text, self._reasoning, self._think)
            case Data():
                self._put(self._data(said))
            case ToolCall():
                self._ask(said)
            case ToolStart() | ToolResult() | ToolError():
                self._go_on(said)
            case Step():
                await self._finish_step(said)
            case _:
                raise Unsayable(f"yielded {_kind(said)}, which is nothing that an agent may say")
        await self._room()

    async def _pieces(self, text: str, whole: WholeText, say: Callable[[str], None]) -> None:
        for at in range(0, len(text), _MOST_TEXT_CHARS):
            say(whole.feed(text[at : at + _MOST_TEXT_CHARS]))
            await self._room()

    async def _room(self) -> None:
        if self._writer.full:
            raise Stopped(Stop.LOG_FULL)
        if self._writer.behind:
            await self._writer.flush()

    def end(self) -> None:
        """Write what is left, and end the calls that are open."""
        self._rest()
        self._calls.close("the agent ended without it")
        self._call.finish_reason = FinishReason.STOP

    def _rest(self) -> None:
        self._think(self._reasoning.end())
        self._say(self._text.end())

    def _say(self, text: str) -> None:
        if text:
            self._put(Text(text), shown=True)
            self._call.text_chars += len(text)
            self._progress.text_chars += len(text)
            if self._call.texts is not None:
                self._call.texts.append(text)

    def _think(self, text: str) -> None:
        if text:
            self._put(Reasoning(text), shown=True)
            self._call.reasoning_chars += len(text)

    def _data(self, said: Data) -> Data:
        if not isinstance(said.what, str) or not 0 < len(said.what) <= _MOST_NAME_CHARS:
            raise Unsayable(f"yielded Data without a name of 1 to {_MOST_NAME_CHARS} characters")
        name = self._plain(said.what, "the name of Data")
        call = None if said.tool_call_id is None else self._own_call(said.tool_call_id, "Data")
        value = self._plain(said.value, f"Data {said.what!r}")
        return Data(str(name), value, None if call is None else call.tool_call_id)

    def _ask(self, said: ToolCall) -> None:
        given = _string(said.tool_call_id, "tool_call_id")
        arguments = self._plain(said.arguments, "a ToolCall", MOST_ARGUMENT_BYTES)
        if not isinstance(arguments, dict):
            raise Unsayable("yielded a ToolCall whose arguments are no object of names and values")
        asked = base.ToolCall(given, _string(said.tool, "tool"), arguments)
        call = self._names.take(base.ToolCallChunk(asked), self._call.number)
        self._own[given] = call
        self._call.calls.append(call)
        # No usage is told with it: a `tool_call` that does ends a model's call.
        event = ToolCall(call.tool_call_id, call.name, call.arguments)
        self._writer.put(event, call_note(self._bill, OWN, told_of(call)))

    def _go_on(self, said: ToolStart | ToolResult | ToolError) -> None:
        call = self._own_call(said.tool_call_id, type(said).__name__)
        match said:
            case ToolStart():
                call.started = True
                self._put(ToolStart(call.tool_call_id, call.name))
            case ToolResult():
                result = self._plain(said.result, f"the result of {call.name}")
                self._calls.end(call, ToolResult(call.tool_call_id, call.name, result))
            case ToolError():
                error = self._plain(said.error, f"the error of {call.name}")
                self._calls.end(call, ToolError(call.tool_call_id, call.name, error))

    def _own_call(self, given: str, what: str) -> CallState:
        call = self._own.get(given)
        if call is None or call.ended is not None:
            raise Unsayable(f"yielded {what} of {given!r:.100}, which is no open call of its own")
        return call

    async def _finish_step(self, said: Step) -> None:
        """Write that a step is over, and wait until that is stored: a later run begins here."""
        if self._call.calls:
            raise Unsayable("yielded a Step while calls of tools were open")
        self._rest()
        checkpoint = self._plain(said.checkpoint, "a checkpoint", MOST_CHECKPOINT_BYTES)
        call = self._call
        note: dict[str, object] = {"model": call.model, "checkpoint": checkpoint, **self._told()}
        self._writer.put_step(StepEvent(call.number, FinishReason.TOOL_CALLS), private_note(note))
        text = "".join(call.texts or ())
        self._progress.finish(
            Called(call.number, text, call.model, FinishReason.TOOL_CALLS, (), self._calls.done)
        )
        call.texts = []
        call.number, call.text_chars, call.reasoning_chars = call.number + 1, 0, 0
        await self._writer.stored()
        self._calls.forget()
        if self._writer.after_step:
            raise Stopped(Stop.CANCELLED)

    def _put(self, event: Event, *, shown: bool = False) -> None:
        """Put an event, with what workers are to know of the agent's model calls so far."""
        note = self._told()
        if shown and self._shown_chars is not None:
            note, self._shown_chars = note | {"shown_chars": self._shown_chars}, None
        self._writer.put(event, private_note(note))

    def _told(self) -> dict[str, object]:
        return told(self._bill, "usage")

    def _plain(self, value: object, what: str, most_bytes: int | None = None) -> object:
        try:
            return plain(value, most_bytes=most_bytes or self._most_bytes)
        except NotPlain as error:
            raise Unsayable(f"yielded {what} that is {error}") from error


def _string(value: object, what: str) -> str:
    if not isinstance(value, str):
        raise Unsayable(f"yielded {_kind(value)} as {what}")
    return value


def _kind(value: object) -> str:
    return f"a value of the type {type(value).__name__}"

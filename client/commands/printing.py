"""Prints an answer: as it grows on a terminal, once and exactly into anything else."""

import sys
from collections.abc import Mapping
from math import ceil
from typing import Final, Protocol

import click

from rejoin.client.commands.tool_lines import ToolLines
from rejoin.client.reading import Change
from rejoin.shared.events import dumps
from rejoin.shared.fold import Message

# C0 without tab and line feed, DEL, C1: a model's text must not steer the terminal.
_STEERING: Final = dict.fromkeys(
    [*(n for n in range(32) if n not in (9, 10)), *range(127, 160)], "\N{REPLACEMENT CHARACTER}"
)


class Printer(Protocol):
    """Takes each change of a message, and its end."""

    def change(self, change: Change, message: Message) -> None:
        """Print what there is to print by now."""

    def end(self, message: Message) -> None:
        """Print the rest; called once, also where the message was not read to its end."""


class Whole:
    """Writes the text that stood at the end, byte for byte; what tools do is said on stderr."""

    def __init__(self) -> None:
        self._tools = ToolLines()
        self._said = 0

    def change(self, change: Change, message: Message) -> None:
        """Say what a tool did; wait with the text, for a later `reset` may take it back."""
        if (said := _beside(change, message)) is not None:
            note(said)
        if change.taken_back:
            self._take_back(change, message)
        elif (line := self._tools.line(change.event.name, change.event.data)) is not None:
            note(line)
            self._said += 1

    def _take_back(self, change: Change, message: Message) -> None:
        self._tools = ToolLines()
        lines = [self._tools.line(event.name, event.fields) for event in message.kept]
        stand = len(lines) - lines.count(None)
        if stand < self._said:
            note(f"what tools did is taken back, to the first {stand} ({_reason(change)})")
        self._said = stand

    def end(self, message: Message) -> None:
        """Write the text."""
        output = sys.stdout.buffer
        # Half a surrogate pair has no bytes; the contract keeps them out of `text`.
        output.write(message.text.encode("utf-8", "replace"))
        output.flush()


class Growing:
    """Writes text as it comes, and, dimmed, thinking and what tools do.

    What was taken back is said on stderr.
    """

    def __init__(self) -> None:
        self._in_line = False
        self._kind = ""
        self._tools = ToolLines()
        reconfigure = getattr(sys.stdout, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")

    def change(self, change: Change, message: Message) -> None:
        """Write what is new, or all that stands where something was taken back."""
        if (said := _beside(change, message)) is not None:
            self._new_line()
            note(said)
        if not change.taken_back:
            self._write(change.event.name, change.event.data)
            return
        self._new_line()
        note(f"the answer so far is taken back ({_reason(change)}); it goes on:")
        self._tools = ToolLines()
        for event in message.kept:
            self._write(event.name, event.fields)

    def end(self, message: Message) -> None:
        """End the line."""
        self._new_line()

    def _write(self, kind: str, fields: Mapping[str, object]) -> None:
        if (line := self._tools.line(kind, fields)) is not None:
            self._new_line()
            self._kind = kind
            click.echo(click.style(line, dim=True))
            return
        text = printable(str(fields.get("text", "")))
        if kind not in ("text", "reasoning") or not text:
            return
        if kind != self._kind:
            self._new_line()
            self._kind = kind
        click.echo(click.style(text, dim=True) if kind == "reasoning" else text, nl=False)
        self._in_line = not text.endswith("\n")

    def _new_line(self) -> None:
        if self._in_line:
            click.echo()
            self._in_line = False


class Events:
    """Writes each event as one line of JSON."""

    def change(self, change: Change, message: Message) -> None:
        """Write the event."""
        event = change.event
        shown = {"id": str(event.id) if event.id else None, "event": event.name}
        line = dumps({**shown, "data": event.data})
        output = sys.stdout.buffer
        output.write(line.encode("utf-8", "replace") + b"\n")
        output.flush()

    def end(self, message: Message) -> None:
        """Everything is written."""


def printer() -> Printer:
    """Return what suits the present stdout."""
    return Growing() if sys.stdout.isatty() else Whole()


def spent(usage: Mapping[str, object]) -> str:
    """Say what a message used and cost, from its `usage`: the cost as it is, to the last digit."""
    parts = [
        _tokens(usage, "input_tokens", "input", "cached_tokens", "cached"),
        _tokens(usage, "output_tokens", "output", "reasoning_tokens", "reasoning"),
    ]
    cost = usage.get("cost_usd")
    money = "price unknown" if cost is None else f"${printable(str(cost))}"
    estimated = ", estimated" if usage.get("estimated") else ""
    return f"{' + '.join(parts)} tokens, {money}{estimated}"


def _beside(change: Change, message: Message) -> str | None:
    """Say what the answer waits for, or that another model goes on; None: neither is so."""
    if change.event.name == "retry":
        return _asked_again(change.event.data)
    if change.event.name != "reset" or len(message.attempts) < 2:
        return None
    before, now = (printable(str(one["model"])) for one in message.attempts[-2:])
    return None if now == before else f"{now} goes on instead of {before} ({_reason(change)})"


def _asked_again(retry: Mapping[str, object]) -> str:
    seconds, reason = retry.get("in_seconds"), printable(str(retry.get("reason")))
    within = f" within {ceil(seconds)} s" if isinstance(seconds, int | float) else ""
    return f"the provider is asked again{within} ({reason})"


def _reason(change: Change) -> str:
    return printable(str(change.event.data.get("reason") or "its log begins again"))


def _tokens(usage: Mapping[str, object], all_of: str, name: str, some_of: str, some: str) -> str:
    within = f" ({usage[some_of]} {some})" if usage.get(some_of) else ""
    return f"{usage.get(all_of, 0)} {name}{within}"


def printable(text: str) -> str:
    """Return `text` without what would steer a terminal."""
    return text.translate(_STEERING)


def note(sentence: str) -> None:
    """Say something beside the answer."""
    click.echo(f"rejoin: {sentence}", err=True)

"""Answers each line of stdin: asked for at a prompt on a terminal, read as it comes elsewhere."""

import sys
from collections.abc import Callable
from typing import Final

import click

from rejoin.client.commands.printing import note
from rejoin.shared.errors import BadRequest, RejoinError

_PROMPT: Final = "> "


def answer_each(answer: Callable[[str], int]) -> int:
    """Call `answer` with each line that is not blank, to the end of stdin; return an exit code.

    At a terminal what goes wrong with one line is said, and the next is asked for. Elsewhere the
    first that does not end well, or is not taken in, is the end: its code, or its error.

    Raises:
        BadRequest: a line is not UTF-8.
        RejoinError: whatever `answer` raises, away from a terminal.
    """
    if sys.stdin.isatty():
        return _at_terminal(answer)
    for raw in sys.stdin.buffer:
        try:
            line = raw.decode().rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise BadRequest(f"stdin is not UTF-8: {error.reason}") from error
        if line.strip():
            code = answer(line)
            _end_line()
            if code:
                return code
    return 0


def _at_terminal(answer: Callable[[str], int]) -> int:
    note("each line is a message; Ctrl-C cancels an answer, Ctrl-D ends")
    while True:
        try:
            line = _asked()
        except KeyboardInterrupt:
            click.echo(err=True)  # the line is given up, not the conversation
            continue
        except EOFError:
            click.echo(err=True)
            return 0
        except UnicodeDecodeError:
            note("the line is not UTF-8")
            continue
        if not line.strip():
            continue
        try:
            answer(line)
            _end_line()
        except RejoinError as error:
            note("; ".join(str(error).splitlines()))


def _asked() -> str:
    if sys.stdout.isatty():
        import readline  # noqa: F401  lends input() its editing, and lines of any length

        return input(_PROMPT)
    # stdout has the answers alone.
    click.echo(_PROMPT, nl=False, err=True)
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line.rstrip("\n")


def _end_line() -> None:
    """Part one answer from the next where they are written as they are."""
    if not sys.stdout.isatty():
        sys.stdout.buffer.write(b"\n")
        sys.stdout.buffer.flush()

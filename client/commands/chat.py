"""`rejoin chat "…"`: send a message to the running server and print its answer."""

import asyncio
import sys
from collections.abc import Sequence
from typing import Final

import click

from rejoin.client.client import Client, IfBusy, Options
from rejoin.client.commands import last_conversation, lines
from rejoin.client.commands.asking import Asker
from rejoin.client.commands.last_conversation import Last
from rejoin.client.commands.printing import note, printable, printer, spent
from rejoin.client.commands.watching import (
    INTERRUPTED,
    WAITS,
    on_interrupt,
    open_tail,
    print_all,
    server_url,
)
from rejoin.client.replies import Accepted
from rejoin.shared.errors import BadRequest, Busy, Conflict, NotFound, RejoinError
from rejoin.shared.fold import Message
from rejoin.shared.settings import load_settings

_PATIENCE_SECONDS: Final = 5.0
_CANCEL_SECONDS: Final = 10.0
_MODEL: Final = "demo/echo"


@click.command()
@click.argument("text", required=False)
@click.option(
    "--model", help="That of the conversation gone on with, REJOIN_DEFAULT_MODEL or demo/echo."
)
@click.option("--conversation", metavar="ID", help="Go on with this conversation.")
@click.option("--continue", "goes_on", is_flag=True, help="Go on with the last conversation.")
@click.option(
    "--if-busy",
    type=click.Choice(["enqueue", "interrupt", "reject"]),
    help="If another message of the conversation is running: wait, cancel it, or give up.",
)
@click.option("--tool", "tools", metavar="NAME", multiple=True, help="A tool that it may call.")
@click.option("--url", help="The server; by default where REJOIN_HOST and REJOIN_PORT say.")
def command(
    text: str | None,
    model: str | None,
    conversation: str | None,
    if_busy: IfBusy | None,
    tools: tuple[str, ...],
    url: str | None,
    *,
    goes_on: bool,
) -> None:
    """Send TEXT (`-`: what stdin holds) and print the answer as it comes.

    Without TEXT each line of stdin is a message of one conversation, until Ctrl-D. A dropped
    connection is taken up again where it was. Ctrl-C cancels the message. At a terminal you are
    asked whether a tool that needs approval may run. The exit code is 1 for a failed message, 130
    for a cancelled one, 3 for one that is left waiting for an answer.
    """
    if goes_on and conversation is not None:
        raise BadRequest("say --continue or --conversation, not both")
    settings = load_settings()
    root = server_url(url, settings)
    last = last_conversation.load(root)
    if goes_on:
        if last is None:
            raise NotFound(f"there is no conversation with {root} to go on with yet")
        conversation = last.conversation_id
    if last is not None and last.conversation_id == conversation:
        model = model or last.model
    at = "" if url is None else f" --url {url}"
    model = model or settings.default_model or _MODEL
    chat = _Chat(root, at, model, conversation, if_busy=if_busy, tools=tools)
    if text is None:
        sys.exit(lines.answer_each(chat.say))
    words = _stdin() if text == "-" else _checked(text)
    sys.exit(chat.say(words, tell=True))


class _Chat:
    """One conversation at the terminal; `at`: options that lead `rejoin tail` to its server."""

    def __init__(
        self,
        root: str,
        at: str,
        model: str,
        conversation_id: str | None,
        *,
        if_busy: IfBusy | None,
        tools: Sequence[str],
    ) -> None:
        self._root = root
        self._at = at
        self._model = model
        self._conversation_id = conversation_id
        self._if_busy = if_busy
        self._options: Options = {"tools": tools} if tools else {}

    def say(self, text: str, *, tell: bool = False) -> int:
        """Send a turn and print its answer; the exit code that says how it ended.

        With `tell` it says how to read it again.

        Raises:
            RejoinError: it was not taken in, or nobody answers any more.
        """
        try:
            return asyncio.run(self._say(text, tell=tell))
        except (KeyboardInterrupt, asyncio.CancelledError):
            return INTERRUPTED

    async def _say(self, text: str, *, tell: bool) -> int:
        async with Client(self._root, patience_seconds=_PATIENCE_SECONDS) as client:
            try:
                accepted = await client.send(
                    text,
                    model=self._model,
                    conversation_id=self._conversation_id,
                    if_busy=self._if_busy,
                    **self._options,
                )
            except Busy as busy:
                active = printable(busy.active_message_id)
                raise Conflict(f"{busy} ({active}): wait for it, or leave out --if-busy") from busy
            except asyncio.CancelledError:
                note("left while sending: the server may have taken it in, and then answers it")
                raise
            self._take(accepted, tell=tell)
            return await self._print(client, accepted.message_id)

    def _take(self, accepted: Accepted, *, tell: bool) -> None:
        """Note what the server has taken in, for the next turn and the next command."""
        message_id = accepted.message_id
        if tell:
            note(f"message {message_id}; to read it again: rejoin tail {message_id}{self._at}")
        if self._conversation_id is None:
            note(f"conversation {accepted.conversation_id}; to go on with it: --continue")
        self._conversation_id = accepted.conversation_id
        if (ahead := accepted.waiting_for) is not None:
            note(f"it waits behind {ahead.message_id} ({ahead.status})")
        try:
            last_conversation.keep(self._root, Last(accepted.conversation_id, self._model))
        except OSError as error:
            note(f"--continue will not know this conversation: {error}")

    async def _print(self, client: Client, message_id: str) -> int:
        asked = False

        async def cancel() -> None:
            nonlocal asked
            asked = True
            note("cancelling; Ctrl-C again leaves it at once")
            try:
                async with asyncio.timeout(_CANCEL_SECONDS):
                    await client.cancel(message_id)
            except (RejoinError, TimeoutError) as error:
                note(f"could not cancel it: {error or 'no answer'}")

        message, asker = Message(), Asker(client, message_id, self._at)
        try:
            async with on_interrupt(cancel), asker:
                tail = open_tail(client, message_id)
                code = await print_all(tail, printer(), message, asker)
        except asyncio.CancelledError:
            if asker.left:
                return WAITS
            if not asked:
                raise
            return INTERRUPTED
        if message.usage is not None:
            note(spent(message.usage))
        return code


def _stdin() -> str:
    try:
        return sys.stdin.buffer.read().decode()
    except UnicodeDecodeError as error:
        raise BadRequest(f"stdin is not UTF-8: {error.reason} at byte {error.start}") from error


def _checked(text: str) -> str:
    """Refuse bytes that are not UTF-8: Python shows them as lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BadRequest("TEXT is not UTF-8") from error
    return text

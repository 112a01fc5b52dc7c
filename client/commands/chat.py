"""`rejoin chat "…"`: send a message to the running server and print its answer."""

import asyncio
import sys
from typing import Final

import click

from rejoin.client.client import Client
from rejoin.client.commands.printing import note, printer
from rejoin.client.commands.watching import (
    INTERRUPTED,
    on_interrupt,
    open_tail,
    print_all,
    server_url,
)
from rejoin.shared.errors import BadRequest, RejoinError
from rejoin.shared.settings import load_settings

_PATIENCE_SECONDS: Final = 5.0
_CANCEL_SECONDS: Final = 10.0
_MODEL: Final = "demo/echo"


@click.command()
@click.argument("text")
@click.option("--model", help="REJOIN_DEFAULT_MODEL or demo/echo unless named.")
@click.option("--url", help="The server; by default where REJOIN_HOST and REJOIN_PORT say.")
def command(text: str, model: str | None, url: str | None) -> None:
    """Send TEXT (`-`: what stdin holds) and print the answer as it comes.

    A dropped connection is taken up again where it was. Ctrl-C cancels the message. The exit code
    is 1 for a failed message, 130 for a cancelled one.
    """
    settings = load_settings()
    root = server_url(url, settings)
    words = _stdin() if text == "-" else _checked(text)
    try:
        code = asyncio.run(_chat(root, words, model or settings.default_model or _MODEL, url))
    except (KeyboardInterrupt, asyncio.CancelledError):
        code = INTERRUPTED
    sys.exit(code)


async def _chat(root: str, text: str, model: str, url: str | None) -> int:
    async with Client(root, patience_seconds=_PATIENCE_SECONDS) as client:
        accepted = await client.send(text, model=model)
        message_id = accepted.message_id
        at = "" if url is None else f" --url {url}"
        note(f"message {message_id}; to read it again: rejoin tail {message_id}{at}")
        asked = False

        async def cancel() -> None:
            nonlocal asked
            asked = True
            note("cancelling; Ctrl-C again leaves at once")
            try:
                async with asyncio.timeout(_CANCEL_SECONDS):
                    await client.cancel(message_id)
            except (RejoinError, TimeoutError) as error:
                note(f"could not cancel it: {error or 'no answer'}")

        tail = open_tail(client, message_id)
        try:
            async with on_interrupt(cancel):
                return await print_all(tail, printer())
        except asyncio.CancelledError:
            if not asked:
                raise
            return INTERRUPTED


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

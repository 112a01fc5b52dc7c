"""`rejoin tail ID`: print a message that was sent before, live or ended."""

import asyncio
import sys

import click

from rejoin.client.client import Client
from rejoin.client.commands.printing import Events, printer
from rejoin.client.commands.watching import INTERRUPTED, open_tail, print_all, server_url
from rejoin.shared.errors import BadRequest
from rejoin.shared.ids import EventId, is_message_id
from rejoin.shared.settings import load_settings


@click.command()
@click.argument("message_id", metavar="ID")
@click.option("--after", metavar="EVENT_ID", help="Only what is later than this event.")
@click.option("--json", "as_json", is_flag=True, help="Each event as a line of JSON.")
@click.option("--url", help="The server; by default where REJOIN_HOST and REJOIN_PORT say.")
def command(message_id: str, after: str | None, *, as_json: bool, url: str | None) -> None:
    """Print the message ID to its end, as it comes. Ctrl-C stops reading; the message goes on.

    A `reset` that goes back to --after, or before it, begins at the start again. The exit code is
    1 for a failed message, 130 for a cancelled one.
    """
    root = server_url(url, load_settings())
    if not is_message_id(message_id):
        raise BadRequest(f"{message_id!r} is no message id")
    if after is not None:
        _check(after)
    try:
        code = asyncio.run(_tail(root, message_id, after, as_json=as_json))
    except KeyboardInterrupt:
        code = INTERRUPTED
    sys.exit(code)


async def _tail(root: str, message_id: str, after: str | None, *, as_json: bool) -> int:
    async with Client(root) as client:
        tail = open_tail(client, message_id, after)
        return await print_all(tail, Events() if as_json else printer())


def _check(after: str) -> None:
    try:
        EventId.parse(after)
    except ValueError as error:
        raise BadRequest(f"--after: {error}") from error

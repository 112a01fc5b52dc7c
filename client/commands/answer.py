"""`rejoin answer MESSAGE CALL`: answer a tool's call that waits, so that its message goes on."""

import asyncio
import json
from typing import Final

import click

from rejoin.client.client import Client
from rejoin.client.commands.printing import note
from rejoin.client.commands.watching import server_url
from rejoin.client.tool_answer import NO_RESULT
from rejoin.shared.errors import BadRequest
from rejoin.shared.ids import is_message_id
from rejoin.shared.settings import load_settings

_PATIENCE_SECONDS: Final = 5.0


@click.command()
@click.argument("message_id", metavar="MESSAGE")
@click.argument("tool_call_id", metavar="CALL")
@click.option("--approve", is_flag=True, help="The tool may run.")
@click.option("--refuse", is_flag=True, help="It may not; the model is told.")
@click.option("--result", metavar="JSON", help="What the tool returned that you ran yourself.")
@click.option("--error", metavar="TEXT", help="How it failed.")
@click.option("--url", help="The server; by default where REJOIN_HOST and REJOIN_PORT say.")
def command(
    message_id: str,
    tool_call_id: str,
    *,
    approve: bool,
    refuse: bool,
    result: str | None,
    error: str | None,
    url: str | None,
) -> None:
    """Answer CALL of MESSAGE, which waits; it goes on when its last call is answered.

    The exit code is 1 where it waits no more: another answer came first, or it has ended.
    """
    root = server_url(url, load_settings())
    if not is_message_id(message_id):
        raise BadRequest(f"{message_id!r} is no message id")
    if [approve, refuse, result is not None, error is not None].count(True) != 1:
        raise BadRequest("say one of --approve, --refuse, --result and --error")
    consent = approve if approve or refuse else None
    returned = NO_RESULT if result is None else _parsed(result)

    async def answer() -> None:
        async with Client(root, patience_seconds=_PATIENCE_SECONDS) as client:
            await client.answer_tool(
                message_id, tool_call_id, approve=consent, result=returned, error=error
            )

    asyncio.run(answer())
    at = "" if url is None else f" --url {url}"
    note(f"answered; to read on: rejoin tail {message_id}{at}")


def _parsed(result: str) -> object:
    try:
        parsed: object = json.loads(result)
    except ValueError as error:
        raise BadRequest(
            f"--result is no JSON ({error}): a text wants quotes of its own"
        ) from error
    return parsed

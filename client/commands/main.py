"""`rejoin`: one group, a file a command, imported only when it is asked for."""

import os
import sys
from errno import EDQUOT, EFBIG, ENOSPC
from importlib import import_module
from pathlib import Path
from typing import Final

import click

from rejoin.shared.errors import BadRequest, RejoinError, SettingsError

_INTERRUPTED: Final = 130  # 128 and the number of SIGINT, as shells say it
_UNWRITABLE: Final = frozenset({ENOSPC, EDQUOT, EFBIG})  # click itself sees to a closed pipe
_COMMANDS: Final = ("dev", "api", "worker", "chat", "tail", "answer", "migrate", "doctor")


class _Commands(click.Group):
    """Imports a command when it is named: `rejoin api` needs nothing of the others."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        command = import_module(f"rejoin.client.commands.{cmd_name}").command
        return command if isinstance(command, click.Command) else None

    def invoke(self, ctx: click.Context) -> object:
        """Run the command; what was to be expected is one line, not a traceback."""
        _open_closed_streams()
        try:
            return super().invoke(ctx)
        except RejoinError as error:
            # Here: `rejoin api` needs none of it. A server's words may hold anything.
            from rejoin.client.commands.printing import printable

            said = printable("; ".join(str(error).splitlines()))
            click.echo(f"rejoin: {said}", err=True)
            ctx.exit(2 if isinstance(error, SettingsError | BadRequest) else 1)
        except KeyboardInterrupt:
            click.echo(err=True)
            ctx.exit(_INTERRUPTED)
        except OSError as error:
            if error.errno not in _UNWRITABLE:
                raise
            click.echo(f"rejoin: the output cannot be written: {error.strerror}", err=True)
            ctx.exit(1)


def _open_closed_streams() -> None:
    """Lead standard streams that the caller closed to nowhere: their numbers are not a socket's."""
    if sys.stdin is None:
        sys.stdin = Path(os.devnull).open(encoding="utf-8")  # noqa: SIM115  for the process's life
    if sys.stdout is None:
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="rejoin")
def main() -> None:
    """LLM answers that survive: resumable streams of chat messages."""

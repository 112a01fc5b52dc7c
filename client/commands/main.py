"""`rejoin`: one group, a file a command, imported only when it is asked for."""

from importlib import import_module
from typing import Final

import click

from rejoin.shared.errors import BadRequest, RejoinError, SettingsError

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
        try:
            return super().invoke(ctx)
        except RejoinError as error:
            # Here: `rejoin api` needs none of it. A server's words may hold anything.
            from rejoin.client.commands.printing import printable

            said = printable("; ".join(str(error).splitlines()))
            click.echo(f"rejoin: {said}", err=True)
            ctx.exit(2 if isinstance(error, SettingsError | BadRequest) else 1)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="rejoin")
def main() -> None:
    """LLM answers that survive: resumable streams of chat messages."""

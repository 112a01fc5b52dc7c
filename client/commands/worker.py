"""`rejoin worker`: become a worker's process."""

import click

from rejoin.client.commands.replace import replace_by


@click.command()
@click.option(
    "--check", is_flag=True, help="Only look whether it could run, and say what is wrong."
)
def command(*, check: bool) -> None:
    """Run messages: call the models, write the answers."""
    replace_by("rejoin.worker", ["--check"] if check else [])

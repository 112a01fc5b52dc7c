"""`rejoin api`: become the API's process."""

import click

from rejoin.client.commands.replace import replace_by


@click.command()
@click.option(
    "--check", is_flag=True, help="Only look whether it could run, and say what is wrong."
)
def command(*, check: bool) -> None:
    """Serve the HTTP API, on REJOIN_HOST and REJOIN_PORT."""
    replace_by("rejoin.api", ["--check"] if check else [])

"""`rejoin migrate`: bring the database's schema up to date."""

import asyncio

import click

from rejoin.shared.db import schema
from rejoin.shared.db.engine import Database
from rejoin.shared.settings import Settings, load_settings


@click.command()
def command() -> None:
    """Bring the database of REJOIN_DATABASE_URL up to date; harmless when it is.

    Without that setting it is the SQLite file in REJOIN_DATA_DIR.
    """
    done = asyncio.run(migrate(load_settings()))
    click.echo(f"migrated to {done[-1]}" if done else "the database is up to date")


async def migrate(settings: Settings) -> list[str]:
    """Run what is to be run; the migrations' names.

    Raises:
        SettingsError: the default file's directory cannot be made.
        DatabaseUnavailable: the database is away.
    """
    database = Database.of(settings)
    try:
        return await schema.migrate(database)
    finally:
        await database.aclose()

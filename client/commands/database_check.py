"""Looks whether the database is fit for Rejoin: reachable, and migrated."""

from rejoin.shared.db import schema
from rejoin.shared.db.engine import Database
from rejoin.shared.errors import DatabaseUnavailable, SettingsError
from rejoin.shared.redis_check import Finding, Grade
from rejoin.shared.settings import Settings


async def look(settings: Settings) -> Finding:
    """Say how the database stands, within some seconds; nothing is made, no password shown."""
    try:
        database = Database.of(settings)
    except SettingsError as error:
        return Finding(Grade.BROKEN, str(error))
    name = str(database.file) if database.is_sqlite else database.name
    if database.file is not None and not database.file.exists():
        if database.owns_file:
            return Finding(Grade.OK, f"{name} is made by whoever starts first")
        return Finding(Grade.BROKEN, f"there is no {name}: run `rejoin migrate`")
    try:
        behind = await schema.is_behind(database)
    except SettingsError as error:
        return Finding(Grade.BROKEN, str(error))
    except DatabaseUnavailable as error:
        owned = "move the file away: a new one is made"
        mend = owned if database.owns_file else "start it, or mend REJOIN_DATABASE_URL"
        return Finding(Grade.BROKEN, f"{name}: {str(error).rstrip('.')}; {mend}")
    finally:
        await database.aclose()
    if not behind:
        return Finding(Grade.OK, f"{name} is up to date")
    if database.owns_file:
        return Finding(Grade.OK, f"{name} is brought up to date by whoever starts first")
    return Finding(Grade.BROKEN, f"{name} is behind this version: run `rejoin migrate`")

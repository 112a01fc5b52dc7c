"""REJOIN_DATABASE_URL: read as it is written, or refused without showing any of it."""

import traceback

import pytest
from sqlalchemy.engine import make_url

from rejoin.client.commands import database_check
from rejoin.shared.db.address import read_address
from rejoin.shared.db.engine import Database
from rejoin.shared.errors import SettingsError
from rejoin.shared.redis_check import Grade
from rejoin.shared.settings import Settings

SERVER = "postgresql+asyncpg://me:hunter2@localhost"
UNREADABLE = "postgresql+asyncpg://me@localhost:hunter2/rejoin"


@pytest.mark.parametrize(
    "url",
    [
        f"{SERVER}:5432/rejoin",
        f"{SERVER}/rejoin?ssl=require&timeout=3&prepared_statement_cache_size=0",
        f"{SERVER}/rejoin?host=a:5432&host=b:5432",
        "postgresql+asyncpg://me:p%2Fw%40@localhost/rejoin",
        "sqlite+aiosqlite:////var/lib/rejoin.db",
    ],
)
def test_an_address_is_taken_as_it_is(url: str) -> None:
    assert read_address(url) == make_url(url)


def test_an_address_that_cannot_be_read_is_refused_and_not_shown() -> None:
    with pytest.raises(SettingsError, match=r"^REJOIN_DATABASE_URL cannot be read") as refused:
        Database(UNREADABLE)
    assert "hunter2" not in "".join(traceback.format_exception(refused.value))


def test_libpqs_sslmode_is_told_as_asyncpgs() -> None:
    with pytest.raises(SettingsError, match=r"no option sslmode: write ssl=require for it$"):
        Database(f"{SERVER}/rejoin?sslmode=require")


def test_a_number_that_is_none_is_told() -> None:
    with pytest.raises(SettingsError, match=r"statement_cache_size is a number$"):
        Database(f"{SERVER}/rejoin?statement_cache_size=none")


async def test_doctor_says_what_is_wrong_with_the_address() -> None:
    settings = Settings(database_url=f"{SERVER}/rejoin?sslmode=require")
    found = await database_check.look(settings)
    assert found.grade is Grade.BROKEN
    assert "ssl=require" in found.sentence

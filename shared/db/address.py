"""Reads REJOIN_DATABASE_URL, and says what is wrong with it without showing any of it."""

import inspect
from typing import Final

import asyncpg
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from rejoin.shared.errors import SettingsError

# What SQLAlchemy itself takes out of the address before asyncpg sees it.
_OF_SQLALCHEMY: Final = frozenset({"prepared_statement_cache_size", "prepared_statement_name_func"})
# Numbers to asyncpg, which takes no text for one; SQLAlchemy reads none of them.
_NUMBERS: Final = (
    "statement_cache_size", "max_cached_statement_lifetime", "max_cacheable_statement_size",
)  # fmt: skip
_NAME: Final = "REJOIN_DATABASE_URL"


def read_address(url: str) -> URL:
    """Return it parsed.

    Raises:
        SettingsError: it is no address, or has an option that asyncpg has not, or takes otherwise.
    """
    try:
        address = make_url(url)
    except (ArgumentError, ValueError):
        # Not chained: the text may quote a part of the password.
        raise SettingsError(
            f"{_NAME} cannot be read: in a user's name and password write @ as %40, : as %3A and"
            " / as %2F; or its port is no number"
        ) from None
    if address.get_backend_name() == "postgresql":
        known = _OF_SQLALCHEMY | inspect.signature(asyncpg.connect).parameters.keys()
        for option in sorted(address.query.keys() - known):
            mend = ": write ssl=require for it" if option == "sslmode" else ""
            raise SettingsError(f"{_NAME}: asyncpg has no option {option}{mend}")
        numbers(address)
    return address


def numbers(address: URL) -> dict[str, int]:
    """Return those of its options that asyncpg takes as numbers.

    Raises:
        SettingsError: one of them is none.
    """
    found = {}
    for option in _NUMBERS:
        for text in address.normalized_query.get(option, ()):
            if not text.isdecimal():
                raise SettingsError(f"{_NAME}: {option} is a number")
            found[option] = int(text)
    return found

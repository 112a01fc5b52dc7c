"""Whose request it is: an owner's messages and keys are nobody else's."""

from typing import Final

from starlette.types import Scope

_EVERYBODY: Final = "local"


def owner_of(scope: Scope) -> str:
    """Return the caller's owner: one for all, since REJOIN_AUTH=none listens on loopback alone."""
    return _EVERYBODY

"""The prefix below which an application around it mounts the API, as addresses have it."""

from typing import Final
from urllib.parse import quote

from starlette.types import Scope

_AS_IT_IS: Final = "/:@!$&'()*+,;=~"  # RFC 3986: what a path may have beside letters and digits


def prefix_of(scope: Scope) -> str:
    """Return it percent-encoded, empty where there is none; a scope has it decoded."""
    return quote(scope.get("root_path", ""), safe=_AS_IT_IS)

"""OLLAMA_HOST, read as Ollama's own programs read it."""

import ipaddress
import re
from typing import Final

from rejoin.shared.errors import ProviderError
from rejoin.shared.events import FailureCode

_PORT: Final = "11434"
_PORTS: Final = {"http": "80", "https": "443"}  # where the scheme is spelt out
_NAME: Final = re.compile(r"[A-Za-z0-9._-]+")
# What a server listens on is where a client finds it only by this.
_ANYWHERE: Final = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104


def parse_host(text: str) -> tuple[str, str]:
    """Return the server's URL, without a slash at its end, and its host.

    `host`, `host:port`, `:port`, `http://host`, `https://host:port/path`; nothing is
    127.0.0.1:11434.

    Raises:
        ProviderError: `authentication`, it is none of these. The text does not repeat it.
    """
    scheme, found, rest = text.strip().strip("\"'").strip().partition("://")
    if not found:
        scheme, rest = "http", scheme
    scheme = scheme.lower()
    place, slash, path = rest.partition("/")
    split = re.fullmatch(r"(\[[^\]]*\]|[^:\[\]]*)(?::([0-9]{1,5}))?", place)
    bare = split is None and _is_address(place)  # ::1, without its brackets
    host = place if bare else (split.group(1).strip("[]") if split else "")
    port = (split.group(2) if split else None) or (_PORTS.get(scheme) if found else _PORT)
    host = _ANYWHERE.get(host, host)
    if (
        (split is None and not bare)
        or port is None
        or int(port) > 65_535
        or not (_NAME.fullmatch(host) or _is_address(host))
        or not path.isascii()
        or not path.isprintable()
        or any(letter in path for letter in " ?#")
    ):
        raise ProviderError(
            "OLLAMA_HOST has the form host:port or http://host:port",
            code=FailureCode.AUTHENTICATION,
            retryable=False,
        )
    shown = f"[{host}]" if ":" in host else host
    return f"{scheme}://{shown}:{port}{slash}{path}".rstrip("/"), host


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True

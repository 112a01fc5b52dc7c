"""A provider's key and address from the environment, refused where they cannot work."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from rejoin.shared.errors import ProviderError
from rejoin.shared.events import FailureCode

NO_KEY: Final = "none"  # the SDKs insist on one; servers without keys do not look at it


@dataclass(frozen=True, slots=True)
class Access:
    """Where a provider is and the key for it; `secrets`: what no message may show."""

    key: str
    base_url: str
    host: str
    secrets: tuple[str, ...]


def read_access(environ: Mapping[str, str], name: str, default_url: str, form: str) -> Access:
    """Read NAME_API_KEY and NAME_BASE_URL; `form` is what the URL looks like.

    Raises:
        ProviderError: `authentication` where neither is set, or where one of them cannot be
            used. The text repeats neither.
    """
    prefix = name.upper()
    key = environ.get(f"{prefix}_API_KEY", "").strip()
    base_url = environ.get(f"{prefix}_BASE_URL", "").strip()
    if not key and not base_url:
        raise _unusable(
            f"{name} is not configured: set {prefix}_API_KEY, or {prefix}_BASE_URL for a server"
            " that needs no key"
        )
    if not key.isascii() or not key.isprintable():
        raise _unusable(f"{prefix}_API_KEY holds characters that no key has")
    host = _host(base_url or default_url)
    if host is None:
        raise _unusable(f"{prefix}_BASE_URL has the form {form}")
    # A shorter one is a placeholder, and hiding "x" would spoil every message.
    return Access(key or NO_KEY, base_url or default_url, host, (key,) if len(key) >= 8 else ())


def _host(base_url: str) -> str | None:
    """Return the host of an http(s) URL, None where it is none."""
    try:
        parts = urlsplit(base_url)
        _ = parts.port
    except ValueError:
        return None
    return parts.hostname if parts.scheme in {"http", "https"} else None


def _unusable(detail: str) -> ProviderError:
    return ProviderError(detail, code=FailureCode.AUTHENTICATION, retryable=False)

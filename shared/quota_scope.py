"""What a quota bounds together: all that a provider's key is asked, or one of its models.

A key is a provider and a digest of its API key. What the settings file says bounds all of its
models together, one scope; without that each model has a scope of its own, bounded by what the
provider's headers say.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from rejoin.shared.settings_file import Quota

WINDOW_SECONDS: Final = 60.0

_MARGIN: Final = 0.01  # of a window: a call may be longer on its way than the one before it
_LEAST_MARGIN_MS: Final = 250


class Bounds(NamedTuple):
    """What the settings file bounds; 0: nothing."""

    requests: int = 0
    tokens: int = 0
    at_once: int = 0


UNBOUNDED: Final = Bounds()


@dataclass(frozen=True, slots=True)
class Scope:
    """What is bounded together. `name`: the model, or "" for all of the key's."""

    key: str
    name: str
    bounds: Bounds = UNBOUNDED
    window_seconds: float = WINDOW_SECONDS

    @property
    def line(self) -> str:
        """Its name, for a message that waits in its line: what `leave` takes."""
        return f"{self.key} {self.name}"

    @property
    def window_ms(self) -> int:
        """A little longer than the provider's: the first of two calls may be longer on its way."""
        window_ms = self.window_seconds * 1000
        return round(window_ms + max(_LEAST_MARGIN_MS, window_ms * _MARGIN))


def key_of(provider: str, environ: Mapping[str, str]) -> str:
    """Return the name under which a provider's key has its quota: the key itself is not in it."""
    names = [f"{provider.upper()}_{what}" for what in ("API_KEY", "BASE_URL", "HOST")]
    said = "\n".join(environ.get(name, "").strip() for name in names)
    return f"{provider}:{hashlib.sha256(said.encode()).hexdigest()[:16]}"


def bounds_of(set_up: Quota | None) -> Bounds:
    """What the settings file says of a provider, None where it says nothing."""
    if set_up is None:
        return UNBOUNDED
    return Bounds(
        set_up.requests_per_minute or 0,
        set_up.tokens_per_minute or 0,
        set_up.requests_at_once or 0,
    )

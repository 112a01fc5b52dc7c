"""What a worker process knows of the scopes of its providers' keys (shared/quota.py)."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from rejoin.shared.catalogue import is_agent
from rejoin.shared.providers import REGISTRY
from rejoin.shared.quota_scope import Scope, bounds_of, key_of
from rejoin.shared.settings_file import Quota

_USED_SECONDS: Final = 60.0  # for so long after its last call a key is looked at
_UNKNOWN: Final = frozenset({"demo"})  # it has no key, and no limits but the file's
_PROVIDERS: Final = frozenset(entry.name for entry in REGISTRY)


@dataclass(frozen=True, slots=True)
class Later:
    """It is not the call's turn for so many seconds; `due_ms` is when, by Redis' clock."""

    scope: Scope
    place: str
    seconds: float
    due_ms: int


@dataclass(slots=True)
class Known:
    """What this process knows of a scope, and who waits in it here.

    `heard`: a call of this process was answered, so its headers have been read. `ramps`: each
    answer lets more of those come back that waited. `calls` are under way, and their slots kept;
    `keeping` is set once what tells so is over.
    """

    scope: Scope
    bounded: bool
    heard: bool = False
    ramps: bool = False
    probe: asyncio.Event | None = None
    used_at: float = 0.0
    calls: set[str] = field(default_factory=set)
    keeping: asyncio.Event | None = None
    waiting: dict[str, asyncio.Event] = field(default_factory=dict)


class Scopes:
    """Those that the process has asked for, by their models. `quotas` is the settings file's."""

    def __init__(
        self, quotas: Mapping[str, Quota], window_seconds: float, environ: Mapping[str, str]
    ) -> None:
        self._quotas = quotas
        self._window_seconds = window_seconds
        self._environ = environ
        self._known: dict[str, Known] = {}

    def of(self, model: str) -> Known | None:
        """What is known of a model's scope; None: nothing ever bounds it."""
        provider, _, _ = model.partition("/")
        set_up = self._quotas.get(provider)
        scope_name = "" if set_up is not None else model_of(model)
        at = f"{provider}/{scope_name}"
        if at not in self._known:
            unbounded = provider not in _PROVIDERS or (provider in _UNKNOWN and set_up is None)
            if is_agent(model) or unbounded:
                return None
            key = key_of(provider, self._environ)
            scope = Scope(key, scope_name, bounds_of(set_up), self._window_seconds)
            # A server without keys has no limits to tell of in its headers.
            heard = not self._environ.get(f"{provider.upper()}_API_KEY")
            self._known[at] = Known(scope, bounded=set_up is not None, heard=heard)
        return self._known[at]

    def parked(self, key: str) -> None:
        """Note that a key was parked: no call of its other models goes by what was known before."""
        for known in self._known.values():
            if known.scope.key == key:
                known.bounded = known.ramps = True

    def in_use(self) -> list[Known]:
        """Those with a call under way, or one not long ago; the others are forgotten."""
        since = time.monotonic() - _USED_SECONDS
        self._known = {
            at: known
            for at, known in self._known.items()
            if known.calls or known.waiting or known.used_at > since
        }
        return list(self._known.values())


def model_of(model: str) -> str:
    """The name that the provider gives a model, of `provider/name?options`."""
    return model.partition("/")[2].partition("?")[0]


def tokens_of(chars: int, max_tokens: int | None) -> int:
    """How many tokens to keep for a call: of what it shows, and at most gives where that is known.

    Four characters a token; what it really used is settled afterwards.
    """
    return -(-chars // 4) + (max_tokens or 0)

"""Looks what each provider's key may be asked, and until when it is parked, for `rejoin doctor`."""

import os
from collections.abc import AsyncIterator, Mapping
from math import ceil

from rejoin.client.commands.printing import printable
from rejoin.shared import quota
from rejoin.shared.catalogue import providers
from rejoin.shared.connections import open_redis
from rejoin.shared.errors import LogUnavailable
from rejoin.shared.quota import Seen
from rejoin.shared.quota_scope import bounds_of, key_of
from rejoin.shared.redis_check import Finding, Grade
from rejoin.shared.settings_file import Quota


async def look(redis_url: str, quotas: Mapping[str, Quota]) -> AsyncIterator[tuple[str, Finding]]:
    """Say it of each key that anything bounds; nothing while Redis is away.

    `quotas` is what the settings file says. The keys are those of this environment: a worker with
    others has quotas of its own.
    """
    redis = open_redis(redis_url, connections=1, retries=0)
    try:
        for name in (state.name for state in providers() if state.configured):
            set_up = quotas.get(name)
            key = key_of(name, os.environ)
            parked_seconds, scopes = await quota.look(redis, key, bounds_of(set_up))
            for finding in _findings(parked_seconds, scopes, set_up):
                yield f"quota {name}", finding
    except LogUnavailable:
        return  # which is told already
    finally:
        await redis.aclose()


def _findings(parked_seconds: float, scopes: list[Seen], set_up: Quota | None) -> list[Finding]:
    found = []
    if parked_seconds:
        seconds = max(1, ceil(parked_seconds))
        said = f"the provider asked for a pause: no worker calls it for another {seconds} s"
        found.append(Finding(Grade.WARNING, said))
    if set_up is not None and not any(not scope.name for scope in scopes):
        bounds = bounds_of(set_up)
        own = Seen("", bounds.requests or None, bounds.tokens or None, bounds.at_once or None, 0)
        scopes = [own, *scopes]
    found += [Finding(Grade.OK, said) for scope in scopes if (said := _said(scope))]
    return found


def _said(scope: Seen) -> str:
    parts = [
        f"{count} {what}"
        for count, what in (
            (scope.requests, "requests a minute"),
            (scope.tokens, "tokens a minute"),
            (scope.at_once, "requests at once"),
        )
        if count is not None
    ]
    if not parts:
        return ""
    whose = "" if not scope.name else f"{printable(scope.name)}, as its headers said: "
    waiting = f"; {scope.waiting} wait for their turn" if scope.waiting else ""
    return f"{whose}{', '.join(parts)}{waiting}"

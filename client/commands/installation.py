"""Whether this Python and its packages are what Rejoin needs."""

import platform
import re
import sys
from importlib.metadata import PackageNotFoundError, requires, version
from typing import Final

from rejoin.shared.redis_check import Finding, Grade

OLDEST_PYTHON: Final = (3, 11)
# Held by a contract test, so no other line of versions will do.
_ARQ: Final = "0.28."


def look() -> list[Finding]:
    """Return what there is to say about Python and the packages that Rejoin needs."""
    python = f"Python {platform.python_version()} ({sys.executable})"
    found = [
        Finding(Grade.OK, python)
        if sys.version_info >= OLDEST_PYTHON
        else Finding(Grade.BROKEN, f"{python} is too old: 3.11 is needed")
    ]
    try:
        needed = requires("rejoin") or []
    except PackageNotFoundError:
        return [*found, Finding(Grade.BROKEN, "rejoin is not installed: pip install .")]
    missing = [name for line in needed if (name := _needed(line)) and not _version(name)]
    if missing:
        mend = f"pip install {' '.join(missing)}"
        found.append(Finding(Grade.BROKEN, f"packages are missing: {mend}"))
    arq = _version("arq")
    if arq and not arq.startswith(_ARQ):
        found.append(Finding(Grade.BROKEN, f"arq {arq} will not do: pip install 'arq=={_ARQ}*'"))
    if not missing:
        shown = ", ".join(f"{name} {_version(name)}" for name in ("rejoin", "arq", "redis"))
        found.append(Finding(Grade.OK, f"every package is there ({shown})"))
    return found


def _needed(requirement: str) -> str | None:
    """The package's name; None where it is needed under a condition only."""
    if ";" in requirement:
        return None
    found = re.match(r"[A-Za-z0-9._-]+", requirement)
    return found[0] if found else None


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None

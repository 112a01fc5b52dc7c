"""Mends an append-only file whose end is damaged, after keeping a copy of it."""

import shutil
import subprocess
import time
from pathlib import Path
from typing import Final

from rejoin.shared.errors import Unavailable

_REPAIR_SECONDS: Final = 120


def repair(server: Path, directory: Path) -> str:
    """Cut the file in `directory` back to its last whole command; return what was done.

    Redis itself bears an end that is missing, not one that is garbage, as a machine leaves it
    that lost its power. `server` is any redis-server: it holds redis-check-aof too, and is that
    program when started under its name.

    Raises:
        Unavailable: it cannot be mended.
    """
    manifest = directory / "appendonlydir" / "appendonly.aof.manifest"
    damaged = manifest if manifest.exists() else directory / "appendonly.aof"
    kept = directory.with_name(f"{directory.name}-damaged-{time.strftime('%Y%m%dT%H%M%S')}")
    shutil.copytree(directory, kept, ignore=shutil.ignore_patterns("lock"))
    try:
        done = subprocess.run(  # noqa: S603  redis-server under its other name
            ["redis-check-aof", "--fix", str(damaged)],  # noqa: S607  its path is `executable`
            executable=server,
            input=b"y\n" * 3,
            capture_output=True,
            timeout=_REPAIR_SECONDS,
            check=False,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise Unavailable(f"{damaged} is damaged and cannot be mended: {error}") from error
    if done.returncode != 0:
        said = (done.stdout + done.stderr).decode(errors="replace").strip().splitlines()[-1:]
        raise Unavailable(f"{damaged} is damaged and cannot be mended: {'; '.join(said)}")
    return f"{damaged} was damaged at its end and is cut back; a copy of it is in {kept}"

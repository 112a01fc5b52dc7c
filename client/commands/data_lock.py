"""One embedded Redis a data directory: a lock that lives as long as whoever holds its file."""

import fcntl
import os
import time
from pathlib import Path
from typing import Final, Self

from rejoin.shared.errors import SettingsError

# A Redis whose parent was killed needs a moment to write out its log.
PATIENCE_SECONDS: Final = 5.0
_LOOK_SECONDS: Final = 0.05


class DataLock:
    """The lock on a data directory, taken at once or refused.

    Its file is inherited by the Redis that writes there: even one that outlived its parent
    keeps a second one from the same files.
    """

    def __init__(self, file: int) -> None:
        self.file = file

    @classmethod
    def take(cls, directory: Path) -> Self:
        """Lock `directory`, which is made if need be, within 5 s.

        Raises:
            SettingsError: another process holds it, or it cannot be written.
        """
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            file = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise SettingsError(
                f"REJOIN_DATA_DIR={directory} cannot be written: {error.strerror}"
            ) from error
        end = time.monotonic() + PATIENCE_SECONDS
        while not _lock(file):
            if time.monotonic() > end:
                holder = os.pread(file, 32, 0).decode("ascii", "replace").strip() or "another"
                os.close(file)
                raise SettingsError(
                    f"{directory} is used by another `rejoin dev` (process {holder}): stop it, or"
                    " set REJOIN_DATA_DIR to a directory of its own"
                )
            time.sleep(_LOOK_SECONDS)
        os.ftruncate(file, 0)
        os.pwrite(file, str(os.getpid()).encode(), 0)
        return cls(file)

    def release(self) -> None:
        """Let go of it, as far as this process is concerned."""
        os.close(self.file)


def _lock(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True

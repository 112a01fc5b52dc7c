"""Remembers this user's last conversation with each server, for `rejoin chat --continue`."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from tempfile import NamedTemporaryFile


@dataclass(frozen=True, slots=True)
class Last:
    """A conversation, and the model that answered last in it."""

    conversation_id: str
    model: str


def load(url: str, environ: Mapping[str, str] = os.environ) -> Last | None:
    """Return the last conversation with the server at `url`; None where none is remembered."""
    try:
        found = json.loads(_file(url, environ).read_bytes())
        return Last(str(found["conversation_id"]), str(found["model"]))
    except (OSError, ValueError, TypeError, KeyError):
        return None


def keep(url: str, last: Last, environ: Mapping[str, str] = os.environ) -> None:
    """Remember a conversation as the last one with the server at `url`.

    Raises:
        OSError: it cannot be written.
    """
    file = _file(url, environ)
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Renamed into place: another terminal never reads half of it.
    with NamedTemporaryFile("w", dir=file.parent, delete=False) as written:
        json.dump(asdict(last), written)
    Path(written.name).replace(file)


def _file(url: str, environ: Mapping[str, str]) -> Path:
    """The user's state directory (XDG), not REJOIN_DATA_DIR, which is the server's.

    A file for each server, so that two terminals do not write one; its name does not show the
    address, which may hold a password.
    """
    named = environ.get("XDG_STATE_HOME", "")
    # A relative one is to be passed over (XDG Base Directory Specification).
    root = Path(named) if named.startswith("/") else Path.home() / ".local" / "state"
    name = sha256(url.rstrip("/").encode("utf-8", "surrogateescape")).hexdigest()[:32]
    return root / "rejoin" / "conversations" / f"{name}.json"

"""The project's files, as a clone has them."""

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[2]
SIDES: Final = ("api", "client", "shared", "worker")

_HIDDEN_BUT_OURS: Final = {".ci"}
_MADE: Final = {"__pycache__", "build", "data", "dist"}


def files(*folders: str) -> list[Path]:
    """Every file in `folders` (none: the whole project) that is not made by running something."""
    starts = [ROOT / folder for folder in folders] or [ROOT]
    return sorted(path for start in starts for path in _walk(start))


def name_of(path: Path) -> str:
    """The path as the project's own texts write it."""
    return path.relative_to(ROOT).as_posix()


def pyproject() -> dict[str, Any]:
    """pyproject.toml, parsed."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def _walk(folder: Path) -> Iterator[Path]:
    for path in folder.iterdir():
        if path.is_dir():
            hidden = path.name.startswith(".") and path.name not in _HIDDEN_BUT_OURS
            if not hidden and path.name not in _MADE and not path.name.endswith(".egg-info"):
                yield from _walk(path)
        elif path.is_file():
            yield path

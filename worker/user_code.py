"""Imports what an operator named in a setting: a Python file, or a module by its dotted name."""

import hashlib
import importlib
import importlib.util
import logging
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Final

from rejoin.shared.errors import SettingsError

_LONGEST_REASON: Final = 500

# Frames of the import machinery and of our decorators say nothing of what is to be mended.
_MACHINERY: Final = (importlib.__file__, f"{Path(__file__).parent}/")

_log = logging.getLogger(__name__)


def load_module(entry: str, *, setting: str) -> ModuleType:
    """Import a file (`entry` ends in .py) or a module, once; `setting` is where it was named.

    A file is looked for from the working directory on, and modules are found there too and beside
    the file, after all that are installed.

    Raises:
        SettingsError: there is none, or it fails as it is imported; the text says why.
    """
    path = Path(entry).expanduser().resolve() if entry.endswith(".py") else None
    _find_beside(Path.cwd() if path is None else path.parent)
    try:
        return _imported(entry) if path is None else _executed(path)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # sys.exit() of a script must not look like a clean end
        _log.debug("%s could not be imported", entry, exc_info=error)
        raise SettingsError(f"{setting}: {_why(entry, path, error)}") from error


def _find_beside(folder: Path) -> None:
    # At the end: a file of the user's called queue.py must not stand for Python's own.
    if str(folder) not in sys.path:
        sys.path.append(str(folder))


def _imported(entry: str) -> ModuleType:
    if not all(part.isidentifier() for part in entry.split(".")):
        raise ModuleNotFoundError(f"No module named {entry!r}", name=entry)
    return importlib.import_module(entry)


def _executed(path: Path) -> ModuleType:
    # By its path: two folders may have a tools.py each, and one named twice is one module.
    name = f"rejoin_user_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    if (known := sys.modules.get(name)) is not None:
        return known
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise FileNotFoundError(path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pydantic look their own module up
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _why(entry: str, path: Path | None, error: BaseException) -> str:
    if path is not None and not path.is_file():
        return f"there is no file {entry}, looked for as {path}"
    if isinstance(error, ModuleNotFoundError) and path is None and _is_of(entry, error.name):
        return (
            f"there is no module {entry}: install it, start the worker in the folder that holds"
            " it, or name a file, ending in .py"
        )
    reason = traceback.format_exception_only(error)[-1].strip()
    return f"{entry} could not be imported{_where(error)}: {reason[:_LONGEST_REASON]}"


def _is_of(entry: str, missing: str | None) -> bool:
    """Whether what is missing is the module itself, or a package that it is in."""
    return missing is not None and f"{entry}.".startswith(f"{missing}.")


def _where(error: BaseException) -> str:
    """The line that failed, where Python says it; none of the import machinery's, or our own."""
    if isinstance(error, SyntaxError):
        return f", at {error.filename}:{error.lineno}"
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith(("<", *_MACHINERY))
    ]
    return f", at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""

"""Finds what an operator's files and modules declare: the tools, or the agents, at their top."""

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from rejoin.shared.errors import SettingsError
from rejoin.worker.user_code import load_module


class Declared(Protocol):
    """A function of the user's own that a decorator gave a name."""

    @property
    def name(self) -> str:
        """Its name, the only one in the process."""

    @property
    def function(self) -> Callable[..., object]:
        """The function itself."""


D = TypeVar("D", bound=Declared)


def load_declared(
    entries: Sequence[str], kind: type[D], *, setting: str, noun: str, mend: str
) -> list[D]:
    """Import each file or module and return what is of `kind` at its top, imported things too.

    `setting` is where they were named, `noun` what one is called, as its decorator is, and `mend`
    how to declare one.

    Raises:
        SettingsError: an entry cannot be imported or has none, or two have one name.
    """
    found: dict[str, tuple[D, str]] = {}
    for entry in entries:
        module = load_module(entry, setting=setting)
        declared = [value for value in vars(module).values() if isinstance(value, kind)]
        if not declared:
            raise SettingsError(f"{setting}: {entry} has no {noun}: {mend}")
        for one in declared:
            other, of = found.setdefault(one.name, (one, entry))
            if other != one:
                raise SettingsError(
                    f"{setting}: two {noun}s are called {one.name}, {_place(other)} (of {of}) and"
                    f" {_place(one)} (of {entry}): give one another name, @{noun}(name=...)"
                )
    return [one for one, _ in found.values()]


def _place(declared: Declared) -> str:
    code = declared.function.__code__
    return f"{code.co_filename}:{code.co_firstlineno}"

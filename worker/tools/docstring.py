"""What a function's docstring says to a model: what it does, and its arguments one by one."""

import inspect
import re
from collections.abc import Iterator
from typing import Final

_SECTION: Final = re.compile(r"(Args|Arguments|Raises):\s*")
_ARGUMENT: Final = re.compile(r"(\s+)(\w+)\s*(?:\([^)]*\))?:\s*(.*)")


def described(docstring: str | None) -> tuple[str, dict[str, str]]:
    """Return the description, and each argument's from a section `Args:` in Google's style.

    `Args:` and `Raises:` are no part of the description; every other section is.
    """
    about: list[str] = []
    arguments: list[str] = []
    into: list[str] | None = about
    for line in inspect.cleandoc(docstring or "").splitlines():
        if (section := _SECTION.fullmatch(line)) is not None:
            into = None if section[1] == "Raises" else arguments
        elif into is not about and line.strip() and not line.startswith(" "):
            into = about
            about.append(line)
        elif into is not None:
            into.append(line)
    return "\n".join(about).strip(), dict(_each(arguments))


def _each(lines: list[str]) -> Iterator[tuple[str, str]]:
    """The arguments of a section; what is indented deeper goes on with the one before."""
    name, indent, text = "", "", ""
    for line in lines:
        found = _ARGUMENT.fullmatch(line)
        if found is not None and (not indent or found[1] == indent):
            if name:
                yield name, text.strip()
            indent, name, text = found[1], found[2], found[3]
        elif name:
            text = f"{text} {line.strip()}"
    if name:
        yield name, text.strip()

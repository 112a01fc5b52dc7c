"""Loads the tools that `REJOIN_TOOLS` names: every decorated function of each file or module."""

from collections.abc import Sequence
from typing import Final

from rejoin.shared.errors import SettingsError
from rejoin.worker.tools.base import Tool
from rejoin.worker.tools.function import FunctionTool
from rejoin.worker.user_code import load_module

SETTING: Final = "REJOIN_TOOLS"


def load_tools(entries: Sequence[str]) -> list[Tool]:
    """Import each file or module and return the tools at its top, those it imported too.

    Raises:
        SettingsError: an entry cannot be imported or has no tool, or two tools have one name.
    """
    found: dict[str, tuple[FunctionTool[..., object], str]] = {}
    for entry in entries:
        module = load_module(entry, setting=SETTING)
        tools = [value for value in vars(module).values() if isinstance(value, FunctionTool)]
        if not tools:
            raise SettingsError(
                f"{SETTING}: {entry} has no tool: decorate a function at its top with"
                " rejoin.worker.tools.tool"
            )
        for tool in tools:
            other, of = found.setdefault(tool.name, (tool, entry))
            if other is not tool:
                raise SettingsError(
                    f"{SETTING}: two tools are called {tool.name}, {_place(other)} (of {of}) and"
                    f" {_place(tool)} (of {entry}): give one another name, @tool(name=...)"
                )
    return [tool for tool, _ in found.values()]


def _place(tool: FunctionTool[..., object]) -> str:
    code = tool.function.__code__
    return f"{code.co_filename}:{code.co_firstlineno}"

"""Loads the tools that `REJOIN_TOOLS` names: every decorated function of each file or module."""

from collections.abc import Sequence
from typing import Final

from rejoin.worker.declared import load_declared
from rejoin.worker.tools.base import Tool
from rejoin.worker.tools.function import FunctionTool

SETTING: Final = "REJOIN_TOOLS"


def load_tools(entries: Sequence[str]) -> Sequence[Tool]:
    """Import each file or module and return the tools at its top, those it imported too.

    Raises:
        SettingsError: an entry cannot be imported or has no tool, or two tools have one name.
    """
    mend = "decorate a function at its top with rejoin.worker.tools.tool"
    return load_declared(entries, FunctionTool, setting=SETTING, noun="tool", mend=mend)

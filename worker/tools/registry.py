"""The tools that a worker process has, by their names."""

import asyncio
from collections.abc import Iterable

from rejoin.worker.tools.base import Tool


class Tools:
    """The registered tools of one worker process. `changed` is set when one comes or goes."""

    def __init__(self, tools: Iterable[Tool] = ()) -> None:
        self.changed = asyncio.Event()
        self._tools = {tool.name: tool for tool in tools}

    def add(self, tool: Tool) -> None:
        """Register a tool; a later one of the same name replaces it."""
        if tool.name not in self._tools:
            self.changed.set()
        self._tools[tool.name] = tool

    def remove(self, name: str) -> None:
        """Forget the tool of that name, where there is one."""
        if self._tools.pop(name, None) is not None:
            self.changed.set()

    def find(self, name: str) -> Tool | None:
        """Return the tool of that name, or None."""
        return self._tools.get(name)

    def names(self) -> list[str]:
        """The names of all of them."""
        return sorted(self._tools)

"""The tools that a worker process has, by their names."""

from collections.abc import Iterable

from rejoin.worker.tools.base import Tool


class Tools:
    """The registered tools of one worker process."""

    def __init__(self, tools: Iterable[Tool] = ()) -> None:
        self._tools = {tool.name: tool for tool in tools}

    def add(self, tool: Tool) -> None:
        """Register a tool; a later one of the same name replaces it."""
        self._tools[tool.name] = tool

    def find(self, name: str) -> Tool | None:
        """Return the tool of that name, or None."""
        return self._tools.get(name)

    def names(self) -> list[str]:
        """The names of all of them."""
        return sorted(self._tools)

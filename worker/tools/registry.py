"""The tools that a worker process has, by their names."""

import asyncio
import contextlib
from collections.abc import Iterable

from rejoin.worker.tools.base import Tool


class Tools:
    """The registered tools of one worker process. `changed` is set when one comes or goes."""

    def __init__(self, tools: Iterable[Tool] = ()) -> None:
        self.changed = asyncio.Event()
        self._tools = {tool.name: tool for tool in tools}
        self._expected = set[str]()
        self._came = asyncio.Event()

    def add(self, tool: Tool) -> None:
        """Register a tool; a later one of the same name replaces it."""
        if tool.name not in self._tools:
            self.changed.set()
        self._tools[tool.name] = tool

    def remove(self, name: str) -> None:
        """Forget the tool of that name, where there is one."""
        if self._tools.pop(name, None) is not None:
            self.changed.set()

    def expect(self, prefix: str) -> None:
        """Say that the tools whose names begin so are still to come, until they `came`."""
        self._expected.add(prefix)

    def came(self, prefix: str) -> None:
        """Say that they are all there."""
        self._expected.discard(prefix)
        self._came.set()
        self._came = asyncio.Event()

    async def settle(self, names: Iterable[str], *, seconds: float) -> None:
        """Wait until none of these is still to come, or for so long."""
        prefixes = {name: [one for one in self._expected if name.startswith(one)] for name in names}
        missing = {one for name in prefixes if name not in self._tools for one in prefixes[name]}
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while missing & self._expected:
                    await self._came.wait()

    def find(self, name: str) -> Tool | None:
        """Return the tool of that name, or None."""
        return self._tools.get(name)

    def names(self) -> list[str]:
        """The names of all of them."""
        return sorted(self._tools)

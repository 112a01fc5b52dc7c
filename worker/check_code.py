"""Loads the operator's own code and lists what it gives; for `rejoin doctor`.

So it does with the tools of the MCP servers.
"""

import asyncio
import contextlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rejoin.shared import settings_file
from rejoin.shared.errors import SettingsError
from rejoin.shared.events import dumps
from rejoin.shared.redis_check import Finding, Grade
from rejoin.shared.settings import Settings
from rejoin.worker.agents import loading as agent_loading
from rejoin.worker.agents.loading import load_agents
from rejoin.worker.tools import loading
from rejoin.worker.tools.loading import load_tools


@dataclass(frozen=True, slots=True)
class _Source:
    """A setting that names code, and what is in it."""

    area: str
    setting: str
    entries: Callable[[Settings], Sequence[str]]
    names: Callable[[Sequence[str]], list[str]]


def _tools(entries: Sequence[str]) -> list[str]:
    return [
        f"{tool.name} (asks for approval)" if tool.needs_approval else tool.name
        for tool in sorted(load_tools(entries), key=lambda tool: tool.name)
    ]


def _agents(entries: Sequence[str]) -> list[str]:
    return sorted(agent.model for agent in load_agents(entries))


_SOURCES: Final = (
    _Source("tools", loading.SETTING, lambda settings: settings.tools, _tools),
    _Source("agents", agent_loading.SETTING, lambda settings: settings.agents, _agents),
)


def check_code(settings: Settings) -> int:
    """Say of each setting that names code what it gives, a line of JSON each; 0."""
    for source in _SOURCES:
        # What the code prints as it is imported is none of these lines.
        with contextlib.redirect_stdout(sys.stderr):
            finding = _look(source, settings)
        _write(source.area, finding)
    if settings.settings_file is not None:
        for area, finding in _servers(settings.settings_file):
            _write(area, finding)
    return 0


def _write(area: str, finding: Finding) -> None:
    line = {"area": area, "grade": finding.grade, "sentence": finding.sentence}
    sys.stdout.write(f"{dumps(line)}\n")
    sys.stdout.flush()


def _servers(path: Path) -> list[tuple[str, Finding]]:
    try:
        file = settings_file.filled_in(settings_file.load(path))
    except SettingsError as error:
        return [("settings file", Finding(Grade.BROKEN, str(error)))]
    if not file.mcp:
        return [("mcp", Finding(Grade.OK, f"none: {path} has no table [mcp.NAME]"))]
    from rejoin.worker.tools.mcp_check import look

    return asyncio.run(look(file.mcp))


def _look(source: _Source, settings: Settings) -> Finding:
    entries = source.entries(settings)
    if not entries:
        return Finding(Grade.OK, f"none: {source.setting} is not set")
    try:
        names = source.names(entries)
    except SettingsError as error:
        return Finding(Grade.BROKEN, str(error))
    return Finding(Grade.OK, ", ".join(names))

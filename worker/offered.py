"""The tools that a message offers its models: registered ones, and those that its client runs."""

from collections.abc import Mapping
from dataclasses import dataclass

from rejoin.shared.request import StoredRequest, ToolDefinition
from rejoin.worker.providers import base
from rejoin.worker.tools.base import Tool
from rejoin.worker.tools.registry import Tools


@dataclass(frozen=True, slots=True)
class Offered:
    """`by_name` are the tools that may be called, and `unknown` names that nothing stands behind.

    `shown` is how models see them.
    """

    by_name: Mapping[str, Tool | ToolDefinition]
    shown: tuple[base.Tool, ...] = ()
    unknown: tuple[str, ...] = ()


def offered(tools: Tools, request: StoredRequest) -> Offered:
    """Return what the request offers, of a worker's registered `tools` and its own definitions."""
    by_name: dict[str, Tool | ToolDefinition] = {}
    unknown = []
    for named in request.tools:
        found = tools.find(named) if isinstance(named, str) else named
        if found is None:
            unknown.append(str(named))
        else:
            by_name.setdefault(found.name, found)
    shown = (base.Tool(tool.name, tool.description, tool.parameters) for tool in by_name.values())
    return Offered(by_name, tuple(shown), tuple(unknown))

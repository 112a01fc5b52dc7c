"""The tools that models may call, behind one interface: functions, and those of MCP servers."""

from rejoin.shared.errors import ToolError
from rejoin.worker.tools.base import Call, OnUnknownOutcome
from rejoin.worker.tools.function import tool

__all__ = ["Call", "OnUnknownOutcome", "ToolError", "tool"]

"""Agents of the user's own: async generators, each the model `agent/NAME`."""

from rejoin.shared.events import Reasoning, Text
from rejoin.shared.tool_events import Data, ToolCall, ToolError, ToolResult, ToolStart
from rejoin.worker.agents.declared import Agent, agent
from rejoin.worker.agents.given import Run
from rejoin.worker.agents.model_answer import ModelAnswer
from rejoin.worker.agents.words import Said, Step
from rejoin.worker.providers.base import Turn

__all__ = [
    "Agent",
    "Data",
    "ModelAnswer",
    "Reasoning",
    "Run",
    "Said",
    "Step",
    "Text",
    "ToolCall",
    "ToolError",
    "ToolResult",
    "ToolStart",
    "Turn",
    "agent",
]

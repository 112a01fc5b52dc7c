"""What an agent may say: text, thinking, progress, tools of its own, and steps."""

from dataclasses import dataclass

from rejoin.shared.events import Reasoning, Text
from rejoin.shared.tool_events import Data, ToolCall, ToolError, ToolResult, ToolStart


@dataclass(frozen=True, slots=True)
class Step:
    """A part of the work that is done: a later attempt goes on from here.

    `checkpoint` is any value that JSON has, 256 KiB at most; the agent is given it again. When
    the agent goes on after the `yield`, it is stored.
    """

    checkpoint: object = None


ToolEvent = ToolCall | ToolStart | ToolResult | ToolError

Said = str | Text | Reasoning | Data | ToolEvent | Step

"""A message with tools: model call, tools side by side, model call, to the end."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import pytest
from redis.asyncio import Redis

from rejoin.shared.errors import ProviderError, ToolError
from rejoin.shared.events import FinishReason
from rejoin.shared.fold import fold
from rejoin.shared.frames import Frame
from rejoin.shared.request import ResponseFormat, ToolDefinition
from rejoin.worker.providers.base import (
    FinishChunk,
    ThinkingChunk,
    ToolCall,
    ToolCallChunk,
    Turn,
    UsageChunk,
)
from rejoin.worker.tools.base import Call
from tests.support.in_process import SCRIPT, until_ended, worker_on
from tests.support.messages import post, until_true
from tests.support.scripted_provider import ScriptedProvider, answer, texts
from tests.support.tools import PlainTool, call, calling


def names(frames: list[Frame]) -> list[str]:
    return [frame.name for frame in frames]


def data(frames: list[Frame], name: str) -> list[dict[str, Any]]:
    return [json.loads(frame.json) for frame in frames if frame.name == name]


async def run(
    url: str,
    redis: Redis,
    provider: ScriptedProvider,
    *tools: PlainTool,
    settings: Mapping[str, Any] | None = None,
    **fields: Any,
) -> list[Frame]:
    """Post one message with these tools, and let it end."""
    fields.setdefault("tools", [tool.name for tool in tools])
    async with worker_on(url, provider, tools=tools, **(settings or {})):
        return await until_ended(redis, await post(redis, model=SCRIPT, **fields))


async def test_a_tool_is_called_and_the_model_goes_on_with_its_result(
    clean_redis_url: str, redis: Redis
) -> None:
    provider, look = (
        ScriptedProvider(calling(call("c1", at=1), words="hm"), answer("so")),
        PlainTool(),
    )
    frames = await run(clean_redis_url, redis, provider, look)
    assert names(frames) == [
        "start", "text", "tool_call", "tool_start", "tool_result", "step",
        "text", "step", "usage", "done",
    ]  # fmt: skip
    assert data(frames, "tool_call") == [
        {"tool_call_id": "c1", "name": "look", "arguments": {"at": 1}}
    ]
    assert data(frames, "tool_result")[0]["result"] == {"at": 1}
    assert data(frames, "step") == [
        {"step": 1, "finish_reason": "tool_calls"},
        {"step": 2, "finish_reason": "stop"},
    ]
    assert data(frames, "done") == [{"finish_reason": "stop", "text_chars": 4}]
    assert provider.calls[1].turns[1:] == [
        Turn("assistant", "hm", (ToolCall("c1", "look", {"at": 1}),)),
        Turn("tool", '{"at":1}', tool_call_id="c1"),
    ]
    assert [tool.name for tool in provider.calls[0].tools] == ["look"]

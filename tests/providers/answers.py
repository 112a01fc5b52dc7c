"""Calls a provider and gathers what it sends; the wire samples and what they say."""

import asyncio
from decimal import Decimal
from pathlib import Path

import pytest

from rejoin.shared.errors import ProviderError
from rejoin.shared.events import FinishReason
from rejoin.worker.providers.base import (
    Chunk,
    FinishChunk,
    ModelRequest,
    Provider,
    ReasoningChunk,
    TextChunk,
    ThinkingChunk,
    ToolCall,
    ToolCallChunk,
    Turn,
    UsageChunk,
    WorkingChunk,
)

WIRE = Path(__file__).parent / "wire"
STOP = FinishChunk(FinishReason.STOP)

SAMPLES: dict[str, list[Chunk]] = {
    "openai": [
        *map(TextChunk, ["Grüße", "! ", "日本", "語 ", "👩‍🚀", " ok\n\n", "done."]),
        STOP,
        UsageChunk(19, 75, 64, 8),
    ],
    "openai_refusal": [
        *map(TextChunk, ["I'm sorry, ", "I can't help with that."]),
        STOP,
        UsageChunk(30, 9),
    ],
    "openrouter": [
        *map(ReasoningChunk, ["The user ", "greets."]),
        *map(TextChunk, ["Hello", " there"]),
        ThinkingChunk({"type": "reasoning.text", "text": "The user greets."}),
        STOP,
        UsageChunk(11, 23, 6, 0, Decimal("0.00014")),
    ],
    "ollama": [
        *map(TextChunk, ["Hi", " from", " llama", "🦙", "."]),
        STOP,
        UsageChunk(26, 6),
    ],
    "deepseek": [
        *map(ReasoningChunk, ["Two and ", "two."]),
        TextChunk("4"),
        FinishChunk(FinishReason.LENGTH),
        UsageChunk(14, 5, 4, 12),
    ],
    "vllm": [
        UsageChunk(9, 0),
        ReasoningChunk("Hm. "),
        UsageChunk(9, 1),
        TextChunk("Ja"),
        UsageChunk(9, 2),
        TextChunk("\u00a0so"),
        UsageChunk(9, 3),
        STOP,
        UsageChunk(9, 4),
    ],
}

# Answers of models that were offered tools.
TOOL_SAMPLES: dict[str, list[Chunk]] = {
    "openai_tools": [
        *[WorkingChunk()] * 9,
        ToolCallChunk(ToolCall("call_Vx2kq8", "get_weather", {"city": "Köln", "days": 2})),
        ToolCallChunk(ToolCall("call_9aRt01", "get_time", {"zone": "Europe/Berlin"})),
        FinishChunk(FinishReason.TOOL_CALLS),
        UsageChunk(82, 49, 0, 0),
    ],
    "openrouter_tools": [
        *map(ReasoningChunk, ["I need ", "the weather ☔."]),
        TextChunk("Let me look."),
        *[WorkingChunk()] * 3,
        ThinkingChunk(
            {
                "type": "reasoning.text",
                "text": "I need the weather ☔.",
                "format": "anthropic-claude-v1",
                "index": 0,
                "signature": "EsYBCkgIBhABGAIqQHq7",
            }
        ),
        ThinkingChunk(
            {
                "type": "reasoning.encrypted",
                "data": "gAAAAABo9x",
                "id": "rs_1",
                "format": "openai-responses-v1",
                "index": 1,
            }
        ),
        ToolCallChunk(ToolCall("toolu_01AbC", "get_weather", {"city": "Köln"})),
        FinishChunk(FinishReason.TOOL_CALLS),
        UsageChunk(412, 96, 31, 128, Decimal("0.002331"), 256),
    ],
    "ollama_tools": [
        *[WorkingChunk()] * 2,
        ToolCallChunk(ToolCall("call_k2p1x0vd", "get_weather", {"city": "Köln"})),
        ToolCallChunk(ToolCall("call_u8s3m4ya", "get_weather", {"city": "Paris 🗼"})),
        FinishChunk(FinishReason.TOOL_CALLS),
        UsageChunk(171, 40),
    ],
}


def ask(model: str = "gpt-5-mini") -> ModelRequest:
    return ModelRequest(model, [Turn("user", "Hi")])


async def collect(provider: Provider, request: ModelRequest, into: list[Chunk]) -> None:
    """Append to `into` as the chunks come, so that those before an error are kept."""
    async with provider.stream(request) as chunks:
        async for chunk in chunks:
            into.append(chunk)  # noqa: PERF401  # a comprehension would keep none


async def answer(provider: Provider, request: ModelRequest | None = None) -> list[Chunk]:
    chunks: list[Chunk] = []
    async with asyncio.timeout(10):
        await collect(provider, request or ask(), chunks)
    return chunks


async def failure(
    provider: Provider, request: ModelRequest | None = None, into: list[Chunk] | None = None
) -> ProviderError:
    """Return what the call fails with; the chunks before it are in `into`."""
    with pytest.raises(ProviderError) as caught:
        async with asyncio.timeout(10):
            await collect(provider, request or ask(), [] if into is None else into)
    return caught.value

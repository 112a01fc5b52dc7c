"""Anthropic's events as a test scripts them, and what the wire samples say."""

import json

from rejoin.shared.events import FinishReason
from rejoin.worker.providers.base import (
    Chunk,
    FinishChunk,
    ModelRequest,
    ReasoningChunk,
    TextChunk,
    ThinkingChunk,
    ToolCall,
    ToolCallChunk,
    Turn,
    UsageChunk,
    WorkingChunk,
)
from tests.providers.answers import STOP, WIRE

MODEL = "claude-haiku-5-5"
SIGNED = {
    "type": "thinking",
    "thinking": "Zwei und zwei…",
    "signature": "EqQBCgIYAhIM1gbcDa9GJwZA2b3hGgxBdjrkzLoky3dl1pkiMOYds+/==",
}
REDACTED = {"type": "redacted_thinking", "data": "EmwKAhgBEgy3va3pzix/LafPsn4a=="}

SAMPLES: dict[str, list[Chunk]] = {
    "anthropic": [
        UsageChunk(25, 1),
        *map(TextChunk, ["Grüße", "! ", "日本", "語 👩‍🚀", " ok\n\n", "done."]),
        UsageChunk(25, 15),
        STOP,
    ],
    "anthropic_thinking": [
        UsageChunk(2109, 1, 0, 2000, cache_write_tokens=100),
        *map(ReasoningChunk, ["Zwei und ", "zwei…"]),
        ThinkingChunk(SIGNED),
        ThinkingChunk(REDACTED),
        TextChunk("4"),
        UsageChunk(2109, 61, 57, 2000, cache_write_tokens=100),
        FinishChunk(FinishReason.LENGTH),
    ],
    "anthropic_tools": [
        UsageChunk(472, 2),
        *map(TextChunk, ["Okay, ich prüfe ", "das."]),
        *[WorkingChunk()] * 4,
        ToolCallChunk(
            ToolCall(
                "toolu_01T1x1fJ34qAmk2tNTrN7Up6",
                "get_weather",
                {"location": "Zürich 🏔", "unit": "c"},
            )
        ),
        ToolCallChunk(ToolCall("toolu_02", "now", {})),
        UsageChunk(472, 89),
        FinishChunk(FinishReason.TOOL_CALLS),
    ],
}
BODIES = {name: (WIRE / f"{name}.txt").read_bytes() for name in SAMPLES}


def ask(model: str = MODEL) -> ModelRequest:
    return ModelRequest(model, [Turn("user", "Hi")])


def event(kind: str, **members: object) -> bytes:
    """One event, with the name that the API gives it too."""
    data = json.dumps({"type": kind, **members}, ensure_ascii=False)
    return f"event: {kind}\ndata: {data}\n\n".encode()


def begin(**usage: object) -> bytes:
    return event("message_start", message={"role": "assistant", "content": [], "usage": usage})


def open_block(index: int = 0, **block: object) -> bytes:
    return event("content_block_start", index=index, content_block=block)


def delta(index: int = 0, **members: object) -> bytes:
    return event("content_block_delta", index=index, delta=members)


def close_block(index: int = 0) -> bytes:
    return event("content_block_stop", index=index)


def text(*pieces: str, index: int = 0) -> bytes:
    """A whole block of text."""
    deltas = b"".join(delta(index, type="text_delta", text=piece) for piece in pieces)
    return open_block(index, type="text", text="") + deltas + close_block(index)


def call(*pieces: str, index: int = 0, name: str = "now", **block: object) -> bytes:
    """A whole call of a tool."""
    start = {"type": "tool_use", "id": f"toolu_{index}", "name": name, "input": {}, **block}
    deltas = [delta(index, type="input_json_delta", partial_json=piece) for piece in pieces]
    return open_block(index, **start) + b"".join(deltas) + close_block(index)


def stop(reason: str | None = "end_turn", **usage: object) -> bytes:
    """The last two events."""
    ended = event("message_delta", delta={"stop_reason": reason}, usage=usage)
    return ended + event("message_stop")


def error(kind: str, message: str = "Words.") -> bytes:
    return event("error", error={"type": kind, "message": message}, request_id="req_1")


END = stop()

"""Thoughts amid an answer go back to the API unchanged, each in its place."""

import json
from collections.abc import Mapping

import pytest

from rejoin.worker.providers.anthropic import AnthropicProvider
from rejoin.worker.providers.anthropic_turns import AFTER_CHARS, messages
from rejoin.worker.providers.base import (
    Chunk,
    ModelRequest,
    TextChunk,
    ThinkingChunk,
    Tool,
    ToolCallChunk,
    Turn,
)
from tests.providers.answers import STOP, answer
from tests.providers.anthropic_wire import END, MODEL, SIGNED, begin, call, open_block, stop, text
from tests.providers.anthropic_wire import close_block as close
from tests.support.provider_script import Answer
from tests.support.provider_server import ProviderServer

HI = Turn("user", "Hi")
NOW = Tool("now", "The time.", {"type": "object", "properties": {}})
LATER = {"type": "thinking", "thinking": "Again.", "signature": "later"}
HIDDEN = {"type": "redacted_thinking", "data": "hidden"}


def thought(block: Mapping[str, object], index: int) -> bytes:
    return open_block(index, **block) + close(index)


def block(text: str) -> dict[str, object]:
    return {"type": "text", "text": text}


def as_turn(chunks: list[Chunk]) -> Turn:
    """The answer as the history keeps it: its text, its calls, its thoughts."""
    said = "".join(chunk.text for chunk in chunks if isinstance(chunk, TextChunk))
    calls = [chunk.call for chunk in chunks if isinstance(chunk, ToolCallChunk)]
    thoughts = [chunk.block for chunk in chunks if isinstance(chunk, ThinkingChunk)]
    return Turn("assistant", said, calls, thinking=json.loads(json.dumps(thoughts)))


async def sent_back(
    server: ProviderServer, claude: AnthropicProvider, *answers: bytes
) -> list[dict[str, object]]:
    """What the call after such an answer shows as its content."""
    server.play(*(Answer([body]) for body in answers), Answer([begin() + END]))
    turn = as_turn(await answer(claude, ModelRequest(MODEL, [HI], tools=[NOW])))
    results = [Turn("tool", "x", tool_call_id=one.tool_call_id) for one in turn.tool_calls]
    await answer(claude, ModelRequest(MODEL, [HI, turn, *(results or [HI])], tools=[NOW]))
    shown = server.requests[-1].json["messages"]
    assert isinstance(shown, list)
    return shown[1]["content"]


async def test_thoughts_between_pieces_of_text_keep_their_places(
    server: ProviderServer, claude: AnthropicProvider
) -> None:
    told = begin() + thought(SIGNED, 0) + text("Ein ", "é. ", index=1) + thought(LATER, 2)
    told += thought(HIDDEN, 3) + text("Two.", index=4) + call("{}", index=5) + stop("tool_use")
    content = await sent_back(server, claude, told)
    assert content[:-1] == [SIGNED, block("Ein é. "), LATER, HIDDEN, block("Two.")]
    assert content[-1]["type"] == "tool_use"


async def test_thoughts_after_a_pause_keep_their_places(
    server: ProviderServer, claude: AnthropicProvider
) -> None:
    paused = begin() + thought(SIGNED, 0) + text("One. ", index=1) + stop("pause_turn")
    rest = begin() + thought(LATER, 0) + text("Two.", index=1) + END
    content = await sent_back(server, claude, paused, rest)
    assert content == [SIGNED, block("One. "), LATER, block("Two.")]


@pytest.mark.parametrize("after", [0, 3, 99])
def test_a_thought_behind_its_text_costs_none_of_it(after: int) -> None:
    turn = Turn("assistant", "One.", thinking=[LATER | {AFTER_CHARS: after}, SIGNED])
    content = messages([HI, turn, HI])[1]["content"]
    assert isinstance(content, list)
    assert "".join(one.get("text", "") for one in content) == "One."
    assert [one for one in content if one["type"] == "thinking"] == [LATER, SIGNED]


async def test_thoughts_that_may_not_be_modified_are_left_out(
    server: ProviderServer, claude: AnthropicProvider
) -> None:
    message = (
        "messages.1.content.0: `thinking` or `redacted_thinking` blocks in the latest assistant"
        " message cannot be modified. These blocks must remain as they were in the original"
        " response."
    )
    said = {"type": "error", "error": {"type": "invalid_request_error", "message": message}}
    refused = Answer([json.dumps(said).encode()], 400, content_type="application/json")
    server.play(refused, Answer([begin() + END]))
    turns = [HI, Turn("assistant", "a", thinking=[SIGNED]), HI]
    assert (await answer(claude, ModelRequest(MODEL, turns)))[-1] == STOP
    shown = server.requests[-1].json["messages"]
    assert isinstance(shown, list)
    assert shown[1]["content"] == [block("a")]

"""Reads the content of a delta that is a list of parts: Mistral's models that think send such."""

from collections.abc import Mapping
from typing import Final

from rejoin.worker.providers.base import Chunk, ReasoningChunk, TextChunk
from rejoin.worker.providers.chunk_json import NoChunk

# Where the text came from: nothing of what was said.
_ASIDE: Final = frozenset({"reference"})


def read_parts(content: object) -> list[Chunk]:
    """Return the text and the thoughts of `content`, in their order.

    Raises:
        NoChunk: it is no list of such parts, and something said would be lost.
    """
    if not isinstance(content, list):
        raise NoChunk
    chunks: list[Chunk] = []
    for part in content:
        match part:
            case {"type": "text", "text": str(text)}:
                chunks += [TextChunk(text)] if text else []
            case {"type": "thinking", "thinking": list(thoughts)}:
                chunks += [ReasoningChunk(text) for text in map(_thought, thoughts) if text]
            case {"type": str(kind)} if kind in _ASIDE:
                pass
            case _:
                raise NoChunk
    return chunks


def _thought(thought: Mapping[str, object]) -> str:
    match thought:
        case {"type": "text", "text": str(text)}:
            return text
        case {"type": str(kind)} if kind in _ASIDE:
            return ""
    raise NoChunk

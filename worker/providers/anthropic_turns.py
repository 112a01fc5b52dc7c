"""The turns of a conversation in the words of Anthropic's Messages API."""

import base64
import binascii
import re
from collections.abc import Iterator, Sequence
from typing import Final

from rejoin.shared.content import Content, FilePart, ImagePart, TextPart, text_of
from rejoin.shared.errors import ProviderError
from rejoin.shared.events import FailureCode
from rejoin.worker.providers.base import Turn

Block = dict[str, object]

# Thinking of another provider's, after a fallback, has other types: the API would refuse it.
_THINKING: Final = frozenset({"thinking", "redacted_thinking"})
_NO_ID: Final = re.compile(r"[^a-zA-Z0-9_-]")


def system(turns: Sequence[Turn]) -> str:
    """The text of the system turns, wherever they stand: the API has one place for it."""
    said = (text_of(turn.content) for turn in turns if turn.role == "system")
    return "\n\n".join(text for text in said if text)


def messages(turns: Sequence[Turn]) -> list[dict[str, object]]:
    """The other turns, those of one role that follow each other made one; empty ones are left out.

    Raises:
        ProviderError: `invalid_request`, a part is of a kind that the API does not take.
    """
    made: list[dict[str, object]] = []
    before, blocks = "", list[Block]()
    for turn in turns:
        if turn.role == "system" or not (own := list(_blocks(turn))):
            continue
        role = "assistant" if turn.role == "assistant" else "user"
        if role != before:
            before, blocks = role, []
            made.append({"role": role, "content": blocks})
        blocks += own
    return made


def _blocks(turn: Turn) -> Iterator[Block]:
    if turn.role == "tool":
        yield _result(turn)
        return
    if turn.role == "assistant":
        # Unchanged and first, or the API refuses the turn.
        yield from (dict(block) for block in turn.thinking if block.get("type") in _THINKING)
    yield from _parts(turn.content)
    for call in turn.tool_calls:
        call_id = _call_id(call.tool_call_id)
        yield {"type": "tool_use", "id": call_id, "name": call.name, "input": dict(call.arguments)}


def _result(turn: Turn) -> Block:
    block: Block = {"type": "tool_result", "tool_use_id": _call_id(turn.tool_call_id or "")}
    if content := list(_parts(turn.content)):
        block["content"] = content
    return block | ({"is_error": True} if turn.is_error else {})


def _call_id(given: str) -> str:
    """The id in the letters that the API takes; other providers have more of them."""
    return _NO_ID.sub("_", given)


def _parts(content: Content) -> Iterator[Block]:
    for part in (TextPart(content),) if isinstance(content, str) else content:
        match part:
            case TextPart():
                if part.text:  # the API refuses an empty one
                    yield {"type": "text", "text": part.text}
            case ImagePart():
                yield {"type": "image", "source": _source(part.url)}
            case FilePart():
                yield _document(part)


def _source(url: str) -> Block:
    if not url.startswith("data:"):
        return {"type": "url", "url": url}
    media_type, data = _data_url(url)
    return {"type": "base64", "media_type": media_type, "data": data}


def _document(file: FilePart) -> Block:
    media_type, data = _data_url(file.file_data)
    if media_type == "application/pdf":
        source: Block = {"type": "base64", "media_type": media_type, "data": data}
    elif media_type.startswith("text/"):
        source = {"type": "text", "media_type": "text/plain", "data": _text(data)}
    else:
        raise refused(f"a file is a PDF or text, not {media_type}")
    return {
        "type": "document",
        "source": source,
        **({"title": file.filename} if file.filename else {}),
    }


def _data_url(url: str) -> tuple[str, str]:
    head, comma, data = url.removeprefix("data:").partition(",")
    media_type, *parameters = head.split(";")
    if not comma or not url.startswith("data:") or "base64" not in parameters:
        raise refused("a file is sent as a data: URL with base64")
    return media_type, data


def _text(data: str) -> str:
    try:
        return base64.b64decode(data).decode("utf-8", "replace")
    except (binascii.Error, ValueError):
        raise refused("a file's data is not base64") from None


def refused(mend: str) -> ProviderError:
    """Return the error for what the API has no words for; `mend` says what it takes."""
    return ProviderError(mend, code=FailureCode.INVALID_REQUEST, retryable=False)

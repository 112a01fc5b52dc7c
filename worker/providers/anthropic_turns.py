"""The turns of a conversation in the words of Anthropic's Messages API."""

import base64
import binascii
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, cast

from rejoin.shared.content import Content, FilePart, ImagePart, TextPart, text_of
from rejoin.shared.errors import ProviderError
from rejoin.shared.events import FailureCode
from rejoin.worker.providers.alternation import begun
from rejoin.worker.providers.base import Turn
from rejoin.worker.providers.call_ids import sent_ids

Block = dict[str, object]

# Thinking of another provider's, after a fallback, has other types: the API would refuse it.
_THINKING: Final = frozenset({"thinking", "redacted_thinking"})
# Beside a thought that followed text of its answer: how many characters of it. Never sent.
AFTER_CHARS: Final = "rejoin_after_chars"
_NO_ID: Final = re.compile(r"[^a-zA-Z0-9_-]")
_ID_CHARS: Final = 64
_NO_TEXT: Final = "[no text]"


def system(turns: Sequence[Turn]) -> str:
    """The text of the system turns, wherever they stand: the API has one place for it."""
    said = (text_of(turn.content) for turn in turns if turn.role == "system")
    return "\n\n".join(text for text in said if text)


def messages(turns: Sequence[Turn]) -> list[dict[str, object]]:
    """The other turns, those of one role that follow each other made one; no text is empty.

    The first is the user's, and the last text, where the model is to go on with it, ends without
    white space: the API refuses all else.

    Raises:
        ProviderError: `invalid_request`, a part is of a kind that the API does not take.
    """
    made: list[dict[str, object]] = []
    ids = sent_ids(turns, _NO_ID, _ID_CHARS)
    before, blocks = "", list[Block]()
    for turn in begun([turn for turn in turns if turn.role != "system"]):
        own = list(_blocks(turn, ids))
        role = "assistant" if turn.role == "assistant" else "user"
        if role == before and not _thought_first(blocks):
            # Where there is any, the first block of a message has to be one.
            own = [block for block in own if block["type"] not in _THINKING]
        if not own:
            continue
        if role != before:
            before, blocks = role, []
            made.append({"role": role, "content": blocks})
        blocks += own
    if before == "assistant" and isinstance(text := blocks[-1].get("text"), str):
        blocks[-1] = blocks[-1] | {"text": text.rstrip()}
    return made


def goes_on_unthought(messages: Sequence[Mapping[str, object]]) -> bool:
    """Whether the last answer calls tools, and neither it nor the first of its steps has thought.

    So it is after a fallback from another provider's model in the midst of its steps, and after a
    message of that one's which was cancelled. Models that think by a budget refuse to think then.
    """
    last = max(
        (at for at, said in enumerate(messages) if said["role"] == "assistant"), default=None
    )
    if last is None or "tool_use" not in _kinds(messages[last]):
        return False
    first = last
    while first >= 2 and all(kind == "tool_result" for kind in _kinds(messages[first - 1])):
        first -= 2
    return not any(_kinds(messages[at])[0] in _THINKING for at in (first, last))


def _kinds(message: Mapping[str, object]) -> list[object]:
    return [block["type"] for block in cast(list[Block], message["content"])]


def _thought_first(blocks: Sequence[Block]) -> bool:
    return bool(blocks) and blocks[0]["type"] in _THINKING


def _blocks(turn: Turn, ids: Mapping[str, str]) -> Iterator[Block]:
    if turn.role == "tool":
        yield _result(turn, ids)
        return
    said = list(_parts(turn.content))
    if turn.role == "assistant":
        thoughts = [block for block in turn.thinking if block.get("type") in _THINKING]
        if thoughts and (said or turn.tool_calls):  # thoughts alone are refused
            said = list(_with_thoughts(text_of(turn.content), thoughts))
    elif not said:
        said = [{"type": "text", "text": _NO_TEXT}]
    yield from said
    for call in turn.tool_calls:
        call_id = ids[call.tool_call_id]
        yield {"type": "tool_use", "id": call_id, "name": call.name, "input": dict(call.arguments)}


def _with_thoughts(text: str, thoughts: Sequence[Mapping[str, object]]) -> Iterator[Block]:
    """The text, and the thoughts unchanged and in their places, or the API refuses the turn."""
    at = 0
    for thought in thoughts:
        after = cast(int, thought.get(AFTER_CHARS, 0))
        yield from _parts(text[at:after])
        yield {name: value for name, value in thought.items() if name != AFTER_CHARS}
        at = max(at, after)
    yield from _parts(text[at:])


def _result(turn: Turn, ids: Mapping[str, str]) -> Block:
    call_id = turn.tool_call_id or ""
    block: Block = {"type": "tool_result", "tool_use_id": ids.get(call_id, call_id)}
    if content := list(_parts(turn.content)):
        block["content"] = content
    return block | ({"is_error": True} if turn.is_error else {})


def _parts(content: Content) -> Iterator[Block]:
    for part in (TextPart(content),) if isinstance(content, str) else content:
        match part:
            case TextPart():
                if part.text.strip():  # the API refuses an empty one
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

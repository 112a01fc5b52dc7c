"""A model call in the words of OpenAI's chat completions."""

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Final

from rejoin.shared.content import Content, FilePart, Part, TextPart, encode
from rejoin.shared.errors import ProviderError
from rejoin.shared.events import FailureCode, dumps
from rejoin.shared.request import ResponseFormat
from rejoin.worker.providers.base import ModelRequest, Tool, Turn
from rejoin.worker.providers.call_ids import sent_ids

MAX_TOKENS: Final = "max_tokens"
ID_CHARS: Final = 64  # what the longest of the servers that resemble OpenAI send themselves
_ANY_LETTER: Final = re.compile(r"(?!)")


def body(
    request: ModelRequest, *, limit: str = MAX_TOKENS, id_chars: int = ID_CHARS
) -> dict[str, object]:
    """Return the request's body, but for `stream`; what is not asked for is left out.

    Each turn is one of its `messages`, in the same order. `limit` is what the server calls the
    most tokens of an answer, `id_chars` the length of a call's id that it takes.

    Raises:
        ProviderError: `invalid_request`, a file's data is not base64.
    """
    wanted = request.response_format
    ids = sent_ids(request.turns, _ANY_LETTER, id_chars)
    asked: dict[str, object] = {
        "temperature": request.temperature,
        "top_p": request.top_p,
        limit: request.max_tokens,
        "stop": list(request.stop) or None,
        "reasoning_effort": request.reasoning_effort,
        "response_format": None if wanted is None else _format(wanted),
        "tools": [_tool(tool) for tool in request.tools] or None,
    }
    return {
        "model": request.model,
        "messages": [_message(turn, ids) for turn in request.turns],
        "stream_options": {"include_usage": True},
        **{name: value for name, value in asked.items() if value is not None},
    }


def refused(mend: str) -> ProviderError:
    """Return the error for what a provider has no words for; `mend` says what it takes."""
    return ProviderError(mend, code=FailureCode.INVALID_REQUEST, retryable=False)


def _message(turn: Turn, ids: Mapping[str, str]) -> dict[str, object]:
    message: dict[str, object] = {"role": turn.role, "content": encode(_sent(turn.content))}
    if turn.tool_call_id is not None:
        message["tool_call_id"] = ids.get(turn.tool_call_id, turn.tool_call_id)
    if turn.tool_calls:
        message["tool_calls"] = [
            {
                "id": ids[call.tool_call_id],
                "type": "function",
                "function": {"name": call.name, "arguments": dumps(dict(call.arguments))},
            }
            for call in turn.tool_calls
        ]
        message["content"] = message["content"] or None  # some refuse an empty text
    return message


def _sent(content: Content) -> Content:
    return content if isinstance(content, str) else tuple(map(_part, content))


def _part(part: Part) -> Part:
    """A file of text as text: OpenAI takes no file but a PDF here, and most others take none."""
    if not isinstance(part, FilePart) or not part.file_data.startswith("data:text/"):
        return part
    try:
        text = base64.b64decode(part.file_data.partition(",")[2]).decode("utf-8", "replace")
    except (binascii.Error, ValueError):
        raise refused("a file's data is not base64") from None
    return TextPart(f"{part.filename}:\n{text}" if part.filename else text)


def _tool(tool: Tool) -> dict[str, object]:
    described = {"description": tool.description} if tool.description else {}
    function = {"name": tool.name, **described, "parameters": dict(tool.parameters)}
    return {"type": "function", "function": function}


def _format(wanted: ResponseFormat) -> dict[str, object]:
    said: dict[str, object] = {"name": wanted.name, "schema": wanted.schema}
    if wanted.description is not None:
        said["description"] = wanted.description
    if wanted.strict is not None:
        said["strict"] = wanted.strict
    return {"type": "json_schema", "json_schema": said}

"""Mends the turns of a model call, so that none of them makes a provider refuse all of them.

Each call of a tool has its one result, right behind it, under an id that no other call has. What
every wire format wants is seen to here; what only one of them wants is for its adapter.
"""

import operator
import re
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from rejoin.shared.content import Content, FilePart, ImagePart, Part, TextPart, text_of
from rejoin.worker.providers.base import ModelRequest, ToolCall, Turn

INTERRUPTED: Final = "no result: the call was interrupted"
NAME_CHARS: Final = 64
ID_CHARS: Final = 64  # as the log has them; an adapter shortens them where its provider wants it

_NOT_IN_NAME: Final = re.compile(r"[^a-zA-Z0-9_-]")
_NOT_IN_ID: Final = re.compile(r"[^a-zA-Z0-9_.:-]")


def mended(request: ModelRequest) -> ModelRequest:
    """Return a call whose turns pair calls with results; the same object where they do already.

    Kept are all texts and each call with its result, in order. A call without a result gets one
    that says so. Left out are answers that say nothing, and results of no call: in another's
    voice, the user's or the model's, a tool's words would be taken for theirs.
    """
    turns = list(_mended(request.turns))
    if len(turns) == len(request.turns) and all(map(operator.is_, turns, request.turns)):
        return request
    return replace(request, turns=turns)


@dataclass(slots=True)
class _Pair:
    call: ToolCall
    result: Turn | None = None


def _mended(turns: Sequence[Turn]) -> Iterator[Turn]:
    names = _Names(turns)
    for turn, pairs in _paired(turns):
        calls = tuple(names.of(pair.call) for pair in pairs)
        yield _with(turn, calls)
        yield from map(_result, calls, pairs)


def _paired(turns: Sequence[Turn]) -> list[tuple[Turn, list[_Pair]]]:
    """The turns but for results, each with its calls; a result is of the last call of its id."""
    paired: list[tuple[Turn, list[_Pair]]] = []
    waiting: dict[str, deque[_Pair]] = {}
    for turn in turns:
        if turn.role == "tool":
            if unanswered := waiting.get(turn.tool_call_id or ""):
                unanswered.popleft().result = turn
        elif turn.role != "assistant":
            paired.append((turn, []))
        elif turn.tool_calls or text_of(_spoken(turn.content)).strip():
            pairs = [_Pair(call) for call in turn.tool_calls]
            own: dict[str, deque[_Pair]] = {}
            for pair in pairs:
                own.setdefault(pair.call.tool_call_id, deque()).append(pair)
            waiting |= own
            paired.append((turn, pairs))
    return paired


class _Names:
    """Gives calls a name and an id that providers take, and each id to one call alone."""

    def __init__(self, turns: Sequence[Turn]) -> None:
        self._said = {call.tool_call_id for turn in turns for call in turn.tool_calls}
        self._used: set[str] = set()

    def of(self, call: ToolCall) -> ToolCall:
        """The call itself where nothing is wrong with it."""
        name = _NOT_IN_NAME.sub("_", call.name)[:NAME_CHARS] or "unknown"
        call_id = self._id(call.tool_call_id)
        if (name, call_id) == (call.name, call.tool_call_id):
            return call
        return ToolCall(call_id, name, call.arguments)

    def _id(self, given: str) -> str:
        made = _NOT_IN_ID.sub("_", given)[:ID_CHARS] or "call"
        stem, number = made[: ID_CHARS - 8], 1
        # The same one each time: a provider's cache knows the history by its bytes.
        while made in self._used or (made != given and made in self._said):
            number += 1
            made = f"{stem}_{number}"
        self._used.add(made)
        return made


def _with(turn: Turn, calls: tuple[ToolCall, ...]) -> Turn:
    """The turn with these calls, and nothing that its role has not; itself where it is so."""
    if turn.role != "user" and (content := _spoken(turn.content)) is not turn.content:
        turn = replace(turn, content=content)
    if turn.tool_call_id is not None or turn.is_error:
        turn = replace(turn, tool_call_id=None, is_error=False)
    if turn.role != "assistant" and turn.thinking:
        turn = replace(turn, thinking=())
    same = len(calls) == len(turn.tool_calls) and all(map(operator.is_, calls, turn.tool_calls))
    return turn if same else replace(turn, tool_calls=calls)


def _result(call: ToolCall, pair: _Pair) -> Turn:
    result = pair.result
    if result is None:
        return Turn("tool", INTERRUPTED, tool_call_id=call.tool_call_id, is_error=True)
    made = Turn(
        "tool",
        text_of(_spoken(result.content)),
        tool_call_id=call.tool_call_id,
        is_error=result.is_error,
    )
    return result if made == result else made


def _spoken(content: Content) -> Content:
    """Content of a turn that is not the user's: providers take images and files of nobody else."""
    if isinstance(content, str) or all(isinstance(part, TextPart) for part in content):
        return content
    return tuple(map(_described, content))


def _described(part: Part) -> Part:
    match part:
        case TextPart():
            return part
        case ImagePart():
            return TextPart("[an image was here]")
        case FilePart(filename):
            return TextPart(f"[the file {filename} was here]")

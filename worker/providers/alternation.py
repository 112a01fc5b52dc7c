"""Turns in the order on which strict servers insist, those with a model's own chat template.

The templates of Gemma, Mistral and Llama, behind vLLM, llama.cpp and the like, take a system's turn
at the beginning alone, and then the user's and the assistant's by turns, calls of tools and their
results aside; Mistral's own API takes no user's turn right behind a result.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from rejoin.shared.content import Content, Part, TextPart
from rejoin.worker.providers.base import Turn

BEGIN: Final = "[The conversation begins with the assistant.]"
BROKE_OFF: Final = "[The answer broke off here.]"


def alternating(turns: Sequence[Turn]) -> list[Turn]:
    """Return them with every text, in order but for the system's; the same where they alternate.

    Neighbours of one role are joined. What is missing in between is said to be: no answer after a
    tool's result, no user's turn before the first answer.
    """
    systems = [turn for turn in turns if turn.role == "system"]
    made: list[Turn] = []
    for turn in turns:
        if turn.role != "system":
            _add(made, turn)
    return [_joined_all(systems), *made] if systems else made


def begun(turns: Sequence[Turn]) -> list[Turn]:
    """Return them with a user's turn as the first that is not the system's."""
    first = next((at for at, turn in enumerate(turns) if turn.role != "system"), None)
    if first is None or turns[first].role == "user":
        return list(turns)
    return [*turns[:first], Turn("user", BEGIN), *turns[first:]]


def _add(made: list[Turn], turn: Turn) -> None:
    before = made[-1] if made else None
    if before is None:
        made += begun([turn])
    elif turn.role == "user" and before.role == "tool":
        made += [Turn("assistant", BROKE_OFF), turn]
    elif turn.role == before.role != "tool" and not before.tool_calls:
        made[-1] = _joined(before, turn)
    else:
        made.append(turn)


def _joined_all(turns: Sequence[Turn]) -> Turn:
    whole, *others = turns
    for turn in others:
        whole = _joined(whole, turn)
    return whole


def _joined(first: Turn, second: Turn) -> Turn:
    return replace(
        second,
        content=_both(first.content, second.content),
        thinking=(*first.thinking, *second.thinking),
    )


def _both(first: Content, second: Content) -> Content:
    if not first or not second:
        return first or second
    if isinstance(first, str) and isinstance(second, str):
        return f"{first}\n\n{second}"
    return (*_parts(first), *_parts(second))


def _parts(content: Content) -> tuple[Part, ...]:
    return (TextPart(content),) if isinstance(content, str) else content

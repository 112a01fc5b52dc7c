"""Structured output: what is said of an answer that does not fit its JSON schema, and to whom."""

import contextlib
from collections.abc import Sequence
from typing import Final

from rejoin.shared.events import Failed, FailureCode, FinishReason
from rejoin.shared.request import ResponseFormat
from rejoin.worker.providers.base import Turn
from rejoin.worker.validation import Unfit, Validation

_LONGEST_MESSAGE: Final = 1_000

# A model's refusal is no answer, and a step that ends in tool calls is not the last one.
_ANSWERS: Final = frozenset({FinishReason.STOP, FinishReason.LENGTH})


async def misfit(
    validation: Validation, wanted: ResponseFormat, text: str, finish_reason: FinishReason
) -> Failed | None:
    """The `failed` event of an answer that does not fit; None where it fits, or is no answer.

    It is retryable where the model may do better when it is asked again.

    Raises:
        OSError: the validator process is not to be had.
    """
    if finish_reason not in _ANSWERS:
        return None
    try:
        faults = await validation.faults(wanted.schema, text)
    except Unfit as error:
        return _failed(f"the answer could not be validated: {error}", retryable=False)
    if not faults:
        return None
    if finish_reason is FinishReason.LENGTH:
        said = "the answer was cut at its longest (max_tokens), so it does not fit the JSON schema"
        return _failed(f"{said}: {faults[0]}", retryable=False)
    return _failed(f"the answer does not fit the JSON schema: {'; '.join(faults)}", retryable=True)


async def correction(validation: Validation, wanted: ResponseFormat, text: str) -> list[Turn]:
    """The turns that show a model its own answer and, where that can be said, what did not fit."""
    faults: list[str] = []
    with contextlib.suppress(Unfit, OSError):
        faults = await validation.faults(wanted.schema, text)
    # Providers take no empty turn of the assistant's.
    own = [Turn("assistant", text)] if text.strip() else []
    return [*own, Turn("user", _told(faults))]


def _told(faults: Sequence[str]) -> str:
    lines = [
        "Your answer does not fit the JSON schema that it was asked to fit:",
        *(f"- {fault}" for fault in faults),
        "Give the whole answer again: only JSON that fits the schema, and nothing around it.",
    ]
    return "\n".join(lines)


def _failed(said: str, *, retryable: bool) -> Failed:
    return Failed(FailureCode.INVALID_OUTPUT, said[:_LONGEST_MESSAGE], retryable)

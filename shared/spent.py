"""What a message has used so far, as its log tells it: finished steps and calls that broke off."""

from decimal import Decimal
from typing import Final

from rejoin.shared.events import Usage
from rejoin.shared.fold import Message
from rejoin.shared.request import StoredRequest, shown_chars

_CHARACTERS_A_TOKEN: Final = 4  # the usual rule of thumb for English text
_NOTHING: Final = Usage()


def spent_of(message: Message, request: StoredRequest | None) -> Usage | None:
    """Return what earlier attempts used; None where none of them got anything of a provider.

    A finished step says what the provider reported. A call that broke off is counted from its
    text, and so is one whose step was taken back: the provider bills it all the same.
    """
    shown = shown_chars(request) if request else 0
    spent: Usage | None = None
    for used in message.step_usages:
        spent = total(spent, Usage(**used))  # type: ignore[arg-type]  # as step_note wrote it
    for text_chars, reasoning_chars in message.broken_calls:
        spent = total(spent, estimated(shown, text_chars, reasoning_chars))
    return spent


def estimated(input_chars: int, text_chars: int, reasoning_chars: int) -> Usage:
    """An approximation for a call that broke off before it reported: four characters a token."""
    return Usage(
        input_tokens=_tokens(input_chars),
        output_tokens=_tokens(text_chars + reasoning_chars),
        reasoning_tokens=_tokens(reasoning_chars),
        estimated=True,
    )


def total(spent: Usage | None, more: Usage) -> Usage:
    """What two calls used together; the cost is known only where both are."""
    if spent is None or spent == _NOTHING:
        return more
    if more == _NOTHING:
        return spent
    costs = [spent.cost_usd, more.cost_usd]
    known = [Decimal(cost) for cost in costs if cost is not None]
    return Usage(
        input_tokens=spent.input_tokens + more.input_tokens,
        output_tokens=spent.output_tokens + more.output_tokens,
        reasoning_tokens=spent.reasoning_tokens + more.reasoning_tokens,
        cached_tokens=spent.cached_tokens + more.cached_tokens,
        cost_usd=decimal_string(sum(known, Decimal(0))) if len(known) == len(costs) else None,
        estimated=spent.estimated or more.estimated,
    )


def decimal_string(amount: Decimal) -> str:
    """The amount without an exponent or trailing zeros: `0.0012`, `0`."""
    text = f"{amount:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _tokens(characters: int) -> int:
    return -(-characters // _CHARACTERS_A_TOKEN)

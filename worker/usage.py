"""What a message used, in tokens and money."""

from collections.abc import Iterable
from decimal import Decimal

from rejoin.shared.events import Usage
from rejoin.worker.providers.base import ModelRequest, UsageChunk

_NOTHING = Usage()
_CHARACTERS_A_TOKEN = 4  # the usual rule of thumb for English text


def usage_event(chunk: UsageChunk) -> Usage:
    """What the provider reported, as an event."""
    return Usage(
        input_tokens=chunk.input_tokens,
        output_tokens=chunk.output_tokens,
        reasoning_tokens=chunk.reasoning_tokens,
        cached_tokens=chunk.cached_tokens,
        cost_usd=None if chunk.cost_usd is None else decimal_string(chunk.cost_usd),
    )


def estimated_usage(request: ModelRequest, text_chars: int, reasoning_chars: int) -> Usage:
    """An approximation for a call that broke off before it reported: four characters a token."""
    shown = sum(len(turn.content) for turn in request.turns)
    return Usage(
        input_tokens=_tokens([shown]),
        output_tokens=_tokens([text_chars, reasoning_chars]),
        reasoning_tokens=_tokens([reasoning_chars]),
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


def _tokens(characters: Iterable[int]) -> int:
    return -(-sum(characters) // _CHARACTERS_A_TOKEN)

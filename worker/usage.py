"""What a model call used, in tokens and money, as an event."""

from rejoin.shared.content import chars_of
from rejoin.shared.events import Usage
from rejoin.shared.spent import decimal_string, estimated
from rejoin.worker.providers.base import ModelRequest, UsageChunk


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
    """An approximation for a call that broke off before it reported."""
    shown = sum(chars_of(turn.content) for turn in request.turns)
    return estimated(shown, text_chars, reasoning_chars)

"""What a model call used, in tokens and money, as an event."""

from dataclasses import dataclass, replace
from datetime import datetime

from rejoin.shared import token_count
from rejoin.shared.content import TextPart
from rejoin.shared.events import Usage
from rejoin.shared.prices import Tokens, cost_of
from rejoin.shared.spent import decimal_string, estimated
from rejoin.worker.providers.base import ModelRequest, UsageChunk


@dataclass(frozen=True, slots=True)
class Priced:
    """A call as it is priced: by the model that answered, `provider/name`, when it was called."""

    model: str
    at: datetime | None = None


def usage_event(chunk: UsageChunk, call: Priced) -> Usage:
    """What the provider reported, as an event; the cost is its own word where it gives one."""
    cost = chunk.cost_usd
    if cost is None:
        tokens = Tokens(
            chunk.input_tokens, chunk.output_tokens, chunk.cached_tokens, chunk.cache_write_tokens
        )
        cost = cost_of(call.model, tokens, at=call.at)
    return Usage(
        input_tokens=chunk.input_tokens,
        output_tokens=chunk.output_tokens,
        reasoning_tokens=chunk.reasoning_tokens,
        cached_tokens=chunk.cached_tokens,
        cost_usd=None if cost is None else decimal_string(cost),
    )


def shown_tokens(model: str, request: ModelRequest) -> int:
    """How many tokens of `provider/name` a call is shown, as far as that is to be known here."""
    return token_count.count(model, request.chars, _sample(request))


def estimated_usage(
    request: ModelRequest, text_chars: int, reasoning_chars: int, call: Priced, given: str = ""
) -> Usage:
    """An approximation for a call that broke off before it reported.

    `given` is what it gave, or the first of it.
    """
    return estimated(
        request.chars,
        text_chars,
        reasoning_chars,
        model=call.model,
        at=call.at,
        given=given,
        input_tokens=shown_tokens(call.model, request),
    )


def broken_usage(
    chunk: UsageChunk,
    request: ModelRequest,
    text_chars: int,
    reasoning_chars: int,
    call: Priced,
    given: str = "",
) -> Usage:
    """What a call used that broke off after a first report: the rest is counted from its text.

    Anthropic reports the input at the start, and of the output a first token.
    """
    seen = estimated_usage(request, text_chars, reasoning_chars, call, given)
    if seen.output_tokens <= chunk.output_tokens:
        return usage_event(chunk, call)
    reasoning = max(chunk.reasoning_tokens, seen.reasoning_tokens)
    more = replace(chunk, output_tokens=seen.output_tokens, reasoning_tokens=reasoning)
    return replace(usage_event(more, call), estimated=True)


def _sample(request: ModelRequest) -> str:
    """Some of what a call is shown: of a long history its beginning and its end."""
    texts = [
        piece
        for turn in request.turns
        for piece in (
            [turn.content]
            if isinstance(turn.content, str)
            else [part.text for part in turn.content if isinstance(part, TextPart)]
        )
    ]
    text = "".join(texts)
    if len(text) <= token_count.SAMPLE_CHARS:
        return text
    half = token_count.SAMPLE_CHARS // 2
    return text[:half] + text[-half:]

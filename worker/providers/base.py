"""What every provider adapter gives: a model call's answer as an iterator of chunks."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Protocol

from rejoin.shared.events import FinishReason


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of the history shown to the model; `role`: system, user or assistant."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """One model call, in our words; a provider translates it into its own.

    `model` is the name without the provider's prefix, with its parameters
    (`echo?rate=50`). A None is left to the provider's default. `reference` is unique to the
    message, for the provider's own logs.
    """

    model: str
    turns: Sequence[Turn]
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    stop: Sequence[str] = ()
    reasoning_effort: str | None = None
    reference: str = ""


@dataclass(frozen=True, slots=True)
class TextChunk:
    """A piece of visible text, exactly as the provider sent it, never empty."""

    text: str


@dataclass(frozen=True, slots=True)
class ReasoningChunk:
    """A piece of thinking text, never empty."""

    text: str


@dataclass(frozen=True, slots=True)
class UsageChunk:
    """What the call used so far; a later one replaces an earlier one of the same call.

    `cost_usd` is what the provider itself says it costs, None where it says nothing.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    cached_tokens: int = 0
    cost_usd: Decimal | None = None


@dataclass(frozen=True, slots=True)
class FinishChunk:
    """The model ended by itself. A stream without one broke off, whatever else it sent."""

    finish_reason: FinishReason
    extra: dict[str, str] = field(default_factory=dict)


Chunk = TextChunk | ReasoningChunk | UsageChunk | FinishChunk


class Provider(Protocol):
    """One provider. Holds its connections, so one object serves a whole worker process."""

    def stream(self, request: ModelRequest) -> AbstractAsyncContextManager[AsyncIterator[Chunk]]:
        """Call the model; leaving the context closes the provider's connection at once.

        No deadline and no retry of its own: the step owns both. The iterator ends after a
        FinishChunk (and the usage that follows it), and never without one.

        Raises:
            ProviderError: with a code of PROTOCOL.md; a stream that stops without a finish
                reason is `provider_protocol`.
        """

    async def aclose(self) -> None:
        """Close idle connections."""

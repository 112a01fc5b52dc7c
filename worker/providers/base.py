"""What every provider adapter gives: a model call's answer as an iterator of chunks."""

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final, Protocol

from rejoin.shared.content import Content, chars_of
from rejoin.shared.events import FinishReason
from rejoin.shared.own_lists import ListedModel as ListedModel
from rejoin.shared.rate_limits import RateLimits
from rejoin.shared.request import ResponseFormat


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that the model asked for, its arguments complete."""

    tool_call_id: str
    name: str
    arguments: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool that the model may call; `parameters` is a JSON schema."""

    name: str
    description: str
    parameters: Mapping[str, object]

    @property
    def chars(self) -> int:
        """How many characters its definition counts as."""
        return len(self.name) + len(self.description) + _chars(self.parameters)


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of the history shown to the model; `role`: system, user, assistant or tool.

    `tool_calls` are an assistant turn's; a tool turn is the result of the one it names. `thinking`
    is what ThinkingChunks of that turn said, sent back unchanged to the provider that sent it.
    """

    role: str
    content: Content
    tool_calls: Sequence[ToolCall] = ()
    tool_call_id: str | None = None
    is_error: bool = False
    thinking: Sequence[Mapping[str, object]] = ()

    @property
    def chars(self) -> int:
        """How many characters it counts as where tokens have to be guessed from its length."""
        calls = sum(len(call.name) + _chars(call.arguments) for call in self.tool_calls)
        return chars_of(self.content) + calls + sum(map(_chars, self.thinking))


def _chars(fields: Mapping[str, object]) -> int:
    # As it goes over the wire, without spaces.
    return len(json.dumps(dict(fields), ensure_ascii=False, separators=(",", ":")))


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
    response_format: ResponseFormat | None = None
    tools: Sequence[Tool] = ()
    reference: str = ""

    @property
    def chars(self) -> int:
        """How many characters its turns, and what else the model is told, count as."""
        shown = sum(turn.chars for turn in self.turns) + sum(tool.chars for tool in self.tools)
        wanted = self.response_format
        return shown if wanted is None else shown + _chars(wanted.schema)


@dataclass(frozen=True, slots=True)
class TextChunk:
    """A piece of visible text, exactly as the provider sent it, never empty."""

    text: str


@dataclass(frozen=True, slots=True)
class ReasoningChunk:
    """A piece of thinking text, never empty."""

    text: str


@dataclass(frozen=True, slots=True)
class ThinkingChunk:
    """A finished thinking block as the provider wants it back, its signature with it.

    `block` is the provider's own JSON; no client sees it. The text of it went out before, as
    ReasoningChunks.
    """

    block: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class WorkingChunk:
    """Something came that is given whole later, such as a piece of a tool's arguments.

    It says nothing but that the provider is not silent, arguments may take minutes, and how many
    characters came, for the bill of an answer that breaks off before they are whole.
    """

    chars: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class ToolCallChunk:
    """The model asks for a tool. Sent once its arguments are complete and are a JSON object.

    Arguments that are none are sent as they came, in `broken`, with `arguments` empty; so are
    those that the answer's end cut off, be it before the first of them ("").
    """

    call: ToolCall
    broken: str | None = None


@dataclass(frozen=True, slots=True)
class UsageChunk:
    """What the call used so far; a later one replaces an earlier one of the same call.

    `input_tokens` has all that the model read: `cached_tokens`, which came from the provider's
    cache, and `cache_write_tokens`, which went into it, are among them, and `reasoning_tokens` are
    among `output_tokens`. `cost_usd` is what the provider itself says it costs, None where it says
    nothing.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    cached_tokens: int = 0
    cost_usd: Decimal | None = None
    cache_write_tokens: int = 0


@dataclass(frozen=True, slots=True)
class LimitsChunk:
    """What the provider's headers say of its key's limits, before anything else of the answer."""

    limits: RateLimits


@dataclass(frozen=True, slots=True)
class FinishChunk:
    """The model ended by itself. A stream without one broke off, whatever else it sent."""

    finish_reason: FinishReason
    extra: dict[str, str] = field(default_factory=dict)


# Ends at which the last call may lack a part of its arguments.
CUT: Final = frozenset({FinishReason.LENGTH, FinishReason.CONTENT_FILTER})

Chunk = (
    TextChunk
    | ReasoningChunk
    | ThinkingChunk
    | WorkingChunk
    | ToolCallChunk
    | UsageChunk
    | LimitsChunk
    | FinishChunk
)


class Provider(Protocol):
    """One provider. Holds its connections, so one object serves a whole worker process."""

    def stream(self, request: ModelRequest) -> AbstractAsyncContextManager[AsyncIterator[Chunk]]:
        """Call the model; leaving the context closes the provider's connection at once.

        No deadline and no retry of its own: the step owns both. The iterator ends after a
        FinishChunk (and the usage that follows it), and never without one.

        Raises:
            ProviderError: with a `failed` code; a stream that stops without a finish
                reason is `provider_protocol`.
        """

    def continues(self, model: str) -> bool:
        """Whether this model goes on with the text of a last turn that is an assistant's.

        It then gives what follows that text, and nothing of it again. False where that is not
        known: another model would begin anew behind it. What a server's list says counts too.
        """

    async def models(self) -> list[ListedModel]:
        """The models that the provider itself lists; [] where it has no list.

        Raises:
            ProviderError: it could not be asked.
        """

    async def aclose(self) -> None:
        """Close idle connections."""

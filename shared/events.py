"""The events of a message's log, a frozen class each, and the codes of `failed`.

Those of tools are in tool_events.py.
"""

import dataclasses
import json
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar, Protocol

Fields = dict[str, object]  # of an event, or of what workers are told, as read from JSON


class FinishReason(StrEnum):
    """Why a model stopped, in the words of `step` and `done`."""

    STOP = "stop"
    LENGTH = "length"
    TOOL_CALLS = "tool_calls"
    CONTENT_FILTER = "content_filter"
    CANCELLED = "cancelled"


class FailureCode(StrEnum):
    """The codes of `failed`."""

    RATE_LIMITED = "rate_limited"
    CONTEXT_LENGTH_EXCEEDED = "context_length_exceeded"
    AUTHENTICATION = "authentication"
    INVALID_REQUEST = "invalid_request"
    CONTENT_FILTER = "content_filter"
    PROVIDER_UNAVAILABLE = "provider_unavailable"
    PROVIDER_TIMEOUT = "provider_timeout"
    PROVIDER_PROTOCOL = "provider_protocol"
    INVALID_OUTPUT = "invalid_output"
    ATTEMPTS_EXHAUSTED = "attempts_exhausted"
    DEADLINE_EXCEEDED = "deadline_exceeded"
    INTERNAL = "internal"


class Event(Protocol):
    """One entry of a log before it has an id: its SSE name and its data."""

    @property
    def name(self) -> str:
        """The SSE `event:` name."""

    def json(self) -> str:
        """The `data:` object, one line, not escaped to ASCII."""


class _Plain:
    """Encodes a dataclass field for field."""

    __slots__ = ()

    def json(self) -> str:
        fields = dataclasses.fields(self)  # type: ignore[arg-type]  # subclasses are dataclasses
        return dumps({f.name: getattr(self, f.name) for f in fields})


def dumps(value: object) -> str:
    """One line of JSON, not escaped to ASCII, without spaces.

    Raises:
        ValueError: a number that JSON has not (NaN, Infinity).
    """
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


@dataclass(frozen=True, slots=True)
class Start(_Plain):
    """First event of a log."""

    name: ClassVar[str] = "start"
    message_id: str
    conversation_id: str
    model: str
    attempt: int
    created_at: str


@dataclass(frozen=True, slots=True)
class Reset(_Plain):
    """Forget every event later than `after` (None: all but `start`)."""

    name: ClassVar[str] = "reset"
    after: str | None
    attempt: int
    model: str
    reason: str


@dataclass(frozen=True, slots=True)
class Text:
    """Visible text, as the provider sent it."""

    name: ClassVar[str] = "text"
    text: str

    def json(self) -> str:
        """Encode without the generic walk: this is the event of the hot path."""
        return f'{{"text":{_string(self.text)}}}'


@dataclass(frozen=True, slots=True)
class Reasoning:
    """Thinking text, where the provider shows it."""

    name: ClassVar[str] = "reasoning"
    text: str

    def json(self) -> str:
        """Encode without the generic walk."""
        return f'{{"text":{_string(self.text)}}}'


@dataclass(frozen=True, slots=True)
class Step(_Plain):
    """A model call is complete: the point that a later attempt goes back to."""

    name: ClassVar[str] = "step"
    step: int
    finish_reason: FinishReason


@dataclass(frozen=True, slots=True)
class Retry(_Plain):
    """The provider failed before it gave anything of this step; it is asked again."""

    name: ClassVar[str] = "retry"
    reason: str
    in_seconds: float


@dataclass(frozen=True, slots=True)
class Usage(_Plain):
    """What the provider bills: the sum of all attempts and steps.

    `cost_usd` is a decimal string, or None when the price is unknown.
    """

    name: ClassVar[str] = "usage"
    input_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    cached_tokens: int = 0
    cost_usd: str | None = None
    estimated: bool = False

    @property
    def tokens(self) -> int:
        """All of them, in and out."""
        return self.input_tokens + self.output_tokens


@dataclass(frozen=True, slots=True)
class Done(_Plain):
    """Last event of a message that ended well or was cancelled."""

    name: ClassVar[str] = "done"
    finish_reason: FinishReason
    text_chars: int


@dataclass(frozen=True, slots=True)
class Failed(_Plain):
    """Last event of a message that could not be finished."""

    name: ClassVar[str] = "failed"
    code: FailureCode
    message: str
    retryable: bool
    status: int | None = None


_string = json.encoder.encode_basestring

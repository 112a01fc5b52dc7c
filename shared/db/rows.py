"""A message as the database holds it, and as its row."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final, NamedTuple

from sqlalchemy import RowMapping

from rejoin.shared import content
from rejoin.shared.content import Content
from rejoin.shared.ids import EventId
from rejoin.shared.record import ENDED, Status

Fields = dict[str, object]


class Spent(NamedTuple):
    """What a message used; `cost_usd` None: the price is unknown."""

    input_tokens: int
    output_tokens: int
    reasoning_tokens: int
    cached_tokens: int
    cost_usd: Decimal | None
    estimated: bool


@dataclass(frozen=True, slots=True)
class StoredCall:
    """A tool call; it has a result, an error, or neither yet.

    `ended` tells a result that is JSON's null from none. `needs` and `running` are of a message
    that goes on: what the call waits for, and whether its tool runs; the database has neither.
    """

    tool_call_id: str
    step: int
    name: str
    arguments: Fields
    result: object | None = None
    error: object | None = None
    ended: bool = False
    needs: str | None = None
    running: bool = False

    @property
    def answered(self) -> bool:
        """Whether it has a result or an error; an older version did not say of null."""
        return self.ended or self.result is not None or self.error is not None


class StoredStep(NamedTuple):
    """A finished model call of an answer: how much of the text is its own, who gave it.

    `thinking` are its thinking blocks, as `model`'s provider wants them back.
    """

    text_chars: int
    model: str
    thinking: list[Fields]


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """One message of a conversation: a turn that was sent (`content`), or an answer (`text`).

    `parent_id` None: it begins the conversation. `place` is its own among those of one request.
    `attempt` and `last_event_id` are its log's; `request` are its parameters. `steps` are there
    where the text alone does not tell what the model said. Times are ms since the epoch.
    """

    id: str
    conversation_id: str
    owner: str
    parent_id: str | None
    role: str
    created_at: int
    place: int = 0
    status: Status = Status.DONE
    content: Content | None = None
    model: str | None = None
    text: str = ""
    reasoning: str = ""
    finish_reason: str | None = None
    error: Fields | None = None
    usage: Spent | None = None
    attempts: list[Fields] = field(default_factory=list)
    attempt: int = 0
    last_event_id: EventId | None = None
    request: Fields | None = None
    metadata: Fields | None = None
    started_at: int | None = None
    finished_at: int | None = None
    tool_calls: tuple[StoredCall, ...] = ()
    steps: tuple[StoredStep, ...] = ()

    @property
    def ended(self) -> bool:
        """Whether nothing is added to it any more."""
        return self.status in ENDED


def row_of(message: StoredMessage) -> Fields:
    """The message as a row of `messages`."""
    last, usage = message.last_event_id, message.usage
    row: Fields = {
        name: getattr(message, name)
        for name in (
            "id", "conversation_id", "parent_id", "role", "created_at", "place", "model", "text",
            "reasoning", "finish_reason", "error", "attempts", "request", "metadata", "started_at",
            "finished_at",
        )
    }  # fmt: skip
    row["status"] = message.status.value
    row["content"] = None if message.content is None else content.encode(message.content)
    row["steps"] = [step._asdict() for step in message.steps] or None
    row["attempt"] = last.attempt if last else message.attempt
    row["sequence"] = last.sequence if last else None
    for name in Spent._fields:
        row[name] = getattr(usage, name) if usage else None
    return row


def message_of(row: RowMapping, calls: Iterable[StoredCall]) -> StoredMessage:
    """The message of a row of `messages`, its conversation's `owner` beside it."""
    taken = {name: row[name] for name in _AS_THEY_ARE}
    sequence = row["sequence"]
    return StoredMessage(
        **taken,
        status=Status(row["status"]),
        content=None if row["content"] is None else content.decode(row["content"]),
        usage=_spent(row),
        last_event_id=None if sequence is None else EventId(row["attempt"], sequence),
        tool_calls=tuple(calls),
        steps=tuple(StoredStep(**step) for step in row["steps"] or ()),
    )


def call_of(row: RowMapping) -> StoredCall:
    """The call of a row of `tool_calls`."""
    names = ("tool_call_id", "step", "name", "arguments", "result", "error")
    return StoredCall(**{name: row[name] for name in names}, ended=bool(row["ended"]))


def call_row(message_id: str, place: int, call: StoredCall) -> Fields:
    """The call as a row of `tool_calls`."""
    return {
        "message_id": message_id, "place": place, "tool_call_id": call.tool_call_id,
        "step": call.step, "name": call.name, "arguments": call.arguments,
        "result": call.result, "error": call.error, "ended": call.ended,
    }  # fmt: skip


def _spent(row: RowMapping) -> Spent | None:
    if row["input_tokens"] is None:
        return None
    return Spent(
        input_tokens=row["input_tokens"],
        output_tokens=row["output_tokens"],
        reasoning_tokens=row["reasoning_tokens"],
        cached_tokens=row["cached_tokens"],
        cost_usd=row["cost_usd"],
        estimated=bool(row["estimated"]),
    )


_AS_THEY_ARE: Final = (
    "id", "conversation_id", "owner", "parent_id", "role", "created_at", "place", "model", "text",
    "reasoning", "finish_reason", "error", "attempts", "attempt", "request", "metadata",
    "started_at", "finished_at",
)  # fmt: skip

"""What an earlier attempt left in the log, and where a new one goes on."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from rejoin.shared.events import FinishReason, Usage
from rejoin.shared.fold import Message
from rejoin.shared.ids import EventId

_NOTHING: Final = Usage()


@dataclass(frozen=True, slots=True)
class Takeover:
    """Where to go on: `after` is the last event that stays, `text_chars` its visible text.

    `finish_reason` is that of the last finished step where the message only lacks its end, and
    `usage` what its finished steps used. `rejected`: what each model gave for the present step
    that did not fit its JSON schema.
    """

    newest: EventId | None
    after: EventId | None = None
    text_chars: int = 0
    finish_reason: FinishReason | None = None
    usage: Usage = _NOTHING
    rejected: Mapping[str, str] = field(default_factory=dict)


def takeover_of(message: Message) -> Takeover:
    """Return where the next attempt at a message goes on."""
    steps = message.named("step")
    if not steps:
        return Takeover(message.last_event_id, rejected=message.rejected)
    last = steps[-1]
    kept = message.kept[: message.kept.index(last)]
    used = last.private.get("usage")
    return Takeover(
        newest=message.last_event_id,
        after=last.id,
        text_chars=sum(len(str(event.fields["text"])) for event in kept if event.name == "text"),
        finish_reason=FinishReason(str(last.fields["finish_reason"])),
        usage=Usage(**used) if isinstance(used, dict) else _NOTHING,
        rejected=message.rejected,
    )


def left_as_it_is(message: Message) -> Takeover:
    """Where an attempt goes on that only ends the message: nothing is taken back."""
    newest = message.last_event_id
    return Takeover(newest, after=newest, text_chars=len(message.text))


def usage_note(usage: Usage | None) -> bytes:
    """What a `step` or `usage` entry tells later attempts alone: what its call or calls used."""
    return b"" if usage is None else f'{{"usage":{usage.json()}}}'.encode()

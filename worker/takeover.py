"""What an earlier attempt left in the log, and where a new one goes on."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from rejoin.shared.events import FinishReason, Usage, dumps
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


def step_note(usage: Usage, model: str, thinking: Sequence[Mapping[str, object]]) -> bytes:
    """What a `step` entry tells workers alone: what its call used, and how its model thought.

    A later call shows a model of the same provider its thinking again.
    """
    if not thinking:
        return usage_note(usage)
    # With escapes: a provider may cut a surrogate pair in two, which UTF-8 has no bytes for.
    blocks = json.dumps([dict(block) for block in thinking], separators=(",", ":"))
    return f'{{"usage":{usage.json()},"model":{dumps(model)},"thinking":{blocks}}}'.encode()


def usage_note(usage: Usage | None) -> bytes:
    """What a `usage` entry tells later attempts alone: what the calls that it sums up used."""
    return b"" if usage is None else f'{{"usage":{usage.json()}}}'.encode()

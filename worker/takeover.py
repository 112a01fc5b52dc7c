"""What an earlier attempt left in the log, and where a new one goes on."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, cast

from rejoin.shared.events import FinishReason, Usage
from rejoin.shared.fold import Message
from rejoin.shared.ids import EventId
from rejoin.shared.tool_calls import CallState
from rejoin.worker.progress import Called, Progress, progress_of

_NOTHING: Final = Usage()


@dataclass(frozen=True, slots=True)
class Takeover:
    """Where to go on: `after` is the last event that stays, `text_chars` its visible text.

    `finish_reason` is that of the last finished step where the message only lacks its end, and
    `usage` what its finished steps used. `rejected`: what each model gave for the present step
    that did not fit its JSON schema. `progress` is how far the message came with what stays, and
    `begun` whether there was something of the next step's model call. `waited`: that was an
    agent's, which waited for answers to its calls. `failures`: it waited for its turn at a
    provider's key, and so often each model had failed before; None: it did not.
    """

    newest: EventId | None
    after: EventId | None = None
    text_chars: int = 0
    finish_reason: FinishReason | None = None
    usage: Usage = _NOTHING
    rejected: Mapping[str, str] = field(default_factory=dict)
    begun: bool = field(default=False, compare=False)
    progress: Progress = field(default_factory=Progress, compare=False)
    waited: bool = field(default=False, compare=False)
    failures: Mapping[str, int] | None = field(default=None, compare=False)

    @property
    def answered(self) -> bool:
        """Whether the attempt before waited for answers, and did nothing else."""
        present = self.progress.present
        return self.waited or (present is not None and _all_wait(present.open_calls))

    @property
    def model(self) -> str | None:
        """The model that goes on; None: whichever was asked for."""
        return self.progress.model


def takeover_of(message: Message, *, goes_on: bool = False) -> Takeover:
    """Return where the next attempt at a message goes on.

    `goes_on`: with the text of a call that broke off, which stays then; not where it had begun to
    call a tool, or gave no text.
    """
    progress = progress_of(message)
    newest, steps = message.last_event_id, message.named("step")
    if progress.present is not None:  # its tools go on, and nothing is taken back
        return Takeover(newest, newest, progress.text_chars, progress=progress)
    if goes_on and progress.partial is not None and not progress.broken:
        chars, begun = progress.text_chars, progress.begun
        return Takeover(newest, newest, chars, begun=begun, progress=progress)
    progress.partial = None
    waited = _all_wait(progress.open_calls)
    progress.broken, progress.text_chars = [], sum(len(step.text) for step in progress.steps)
    if not steps:
        return Takeover(
            newest,
            rejected=message.rejected,
            begun=progress.begun,
            progress=progress,
            waited=waited,
        )
    last = steps[-1]
    used = last.private.get("usage")
    return Takeover(
        newest=newest,
        after=last.id,
        text_chars=progress.text_chars,
        finish_reason=FinishReason(str(last.fields["finish_reason"])),
        usage=Usage(**used) if isinstance(used, dict) else _NOTHING,
        rejected=message.rejected,
        begun=progress.begun,
        progress=progress,
        waited=waited,
    )


def _all_wait(calls: Sequence[CallState]) -> bool:
    return bool(calls) and all(call.waits and not call.started for call in calls)


def left_as_it_is(message: Message) -> Takeover:
    """Where an attempt goes on that only ends the message: nothing is taken back."""
    newest, progress = message.last_event_id, progress_of(message)
    return Takeover(newest, after=newest, text_chars=progress.text_chars, progress=progress)


def step_note(usage: Usage | None, model: str, thinking: Sequence[Mapping[str, object]]) -> bytes:
    """What a `step` entry tells workers alone: what its call used, and how its model thought.

    A later call shows a model of the same provider its thinking again. `usage` None: it was told
    before, with the model call's last `tool_call`.
    """
    note: dict[str, object] = {"model": model}
    if usage is not None:
        if not thinking:
            return usage_note(usage)
        note = {"usage": json.loads(usage.json()), "model": model}
    if thinking:
        note["thinking"] = [dict(block) for block in thinking]
    return private_note(note)


def parking_note(used: Usage | None, failures: Mapping[str, int]) -> bytes:
    """What the `retry` of a message that waits for its turn at a provider's key tells workers.

    `used` is what calls used that no entry tells of, `failures` how often each model failed.
    """
    note: dict[str, object] = {"failures": dict(failures)}
    if used is not None:
        note["usage"] = json.loads(used.json())
    return private_note(note)


def failures_of(message: Message) -> Mapping[str, int] | None:
    """What `parking_note` told, where nothing came after it; None: the message was not parked."""
    last = message.kept[-1] if message.kept else None
    if last is None or last.name != "retry" or "failures" not in last.private:
        return None
    return cast(Mapping[str, int], last.private["failures"])


def called_note(usage: Usage, called: Called, **more: object) -> bytes:
    """What a model call's last `tool_call` tells workers alone: that the call was over with it."""
    note: dict[str, object] = {
        "usage": json.loads(usage.json()),
        "model": called.model,
        "finish_reason": called.finish_reason.value,
        "thinking": [dict(block) for block in called.thinking],
    }
    return private_note(note | more)


def private_note(note: Mapping[str, object]) -> bytes:
    """JSON for workers alone; b"" where there is nothing to tell."""
    # With escapes: a provider may cut a surrogate pair in two, which UTF-8 has no bytes for.
    return json.dumps(dict(note), separators=(",", ":")).encode() if note else b""


def usage_note(usage: Usage | None, late: Mapping[int, Usage] | None = None) -> bytes:
    """What a `usage` entry tells later attempts alone: what the calls that it sums up used.

    `late`: what other workers told of their attempts, by number, after they had lost them.
    """
    note: dict[str, object] = {} if usage is None else {"usage": json.loads(usage.json())}
    if late:
        note["late"] = {str(attempt): json.loads(used.json()) for attempt, used in late.items()}
    return private_note(note)

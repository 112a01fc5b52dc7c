"""Folds a log's events to the message so far: the one place that knows what `reset` takes back."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from rejoin.shared.events import Fields
from rejoin.shared.frames import Frame, split
from rejoin.shared.ids import EventId
from rejoin.shared.spending import Spending

_TOOL_CALLS: Final = "tool_calls"
_AT_ONCE: Final = 500  # events decoded by one call, which lets no other thread run


@dataclass(slots=True)
class Kept:
    """One event that no `reset` took back."""

    id: EventId | None
    name: str
    fields: Fields
    private: Fields = field(default_factory=dict)


@dataclass(slots=True)
class Message:
    """The message so far. Feed it every event in order; read it at any time.

    `rejected` is what each model gave for the present step that did not fit its JSON schema,
    where the model was asked again. `spending` are its model calls.

    `gap` turns true where a `reset` names an event this reader lacks: it comes back without a
    position, from the start.
    """

    kept: list[Kept] = field(default_factory=list)
    attempts: list[Fields] = field(default_factory=list)
    last_event_id: EventId | None = None
    gap: bool = False
    rejected: dict[str, str] = field(default_factory=dict)
    spending: Spending = field(default_factory=Spending)

    def add_frames(self, frames: Sequence[Frame]) -> None:
        """Take the next events, as the log has them."""
        told = [split(frame.data) for frame in frames]
        # Read as one array: a call of the decoder for each took three times as long as all else.
        fields = json.loads(b"[%b]" % b",".join([text for _, text in told]))
        for (event_id, _, private), (name, _), own in zip(frames, told, fields, strict=True):
            self.add(event_id, name.decode(), own, json.loads(private) if private else None)

    def add(
        self, event_id: EventId | None, name: str, fields: Fields, private: Fields | None = None
    ) -> None:
        """Take the next event; `event_id` is None for the `reset` of an unknown position."""
        if event_id is not None:
            self.last_event_id = event_id
        event = Kept(event_id, name, fields, private or {})
        spending = self.spending
        match name:  # the most frequent ones first
            case "text" | "reasoning":
                text = str(fields["text"])
                spending.text(text, event.private, thought=name == "reasoning")
            case "start" | "reset":
                self._begin(event)
            case "tool_call":
                spending.tool_call(fields, event.private)
            case "step":
                self.rejected = {}
                calls_tools = fields.get("finish_reason") == _TOOL_CALLS
                spending.step(event.private, calls_tools=calls_tools)
            case "usage":
                numbers = (str(attempt["attempt"]) for attempt in self.attempts)
                places = {number: place for place, number in enumerate(numbers)}
                spending.usage(event.private, places)
            case "retry":
                spending.retry(event.private)
            case "data" | "tool_start" | "tool_result" | "tool_error":
                spending.note(event.private)
        self.kept.append(event)

    def _begin(self, event: Kept) -> None:
        if event.name == "start":
            self.kept = []
            self.gap = False
            self.rejected = {}
            self._lose(event)
        else:
            self._note_rejected(event)
            self._lose(event)
            self._take_back(event)
        if event.id is not None:
            self._note_attempt(event)
        if not event.private.get("goes_on"):
            self.spending.to_call = not event.private.get("ends") and self._is_to_call()

    def _lose(self, opening: Kept) -> None:
        private = opening.private
        if private.get("goes_on") or opening.fields.get("attempt") == self._attempt("attempt"):
            return  # its call is under way still, or is yet to begin
        self.spending.next_worker(private)

    def _is_to_call(self) -> bool:
        """Whether an attempt that begins now calls a model first: no step's calls are open."""
        for event in reversed(self.kept):
            if event.name == "step":
                return event.fields.get("finish_reason") == _TOOL_CALLS
            if event.name == "tool_call" and "usage" in event.private:
                return False
        return True

    def _note_rejected(self, reset: Kept) -> None:
        model = str(reset.fields.get("model"))
        # With another model it is a fallback's turn, which has seen nothing of it.
        if reset.fields.get("reason") == "invalid_output" and self._attempt("model") == model:
            steps = [at for at, event in enumerate(self.kept) if event.name == "step"]
            since = self.kept[steps[-1] :] if steps else self.kept
            texts = (str(event.fields["text"]) for event in since if event.name == "text")
            self.rejected[model] = "".join(texts)

    def _take_back(self, reset: Kept) -> None:
        after = reset.fields.get("after")
        if reset.id is None:
            self.kept, self.attempts, self.last_event_id = [], [], None
            self.spending.forget()
        elif after is None:
            self.kept = [event for event in self.kept if event.name == "start"]
        else:
            bound = EventId.parse(str(after))
            if all(event.id != bound for event in self.kept):
                self.gap = True
            self.kept = [event for event in self.kept if event.id is None or event.id <= bound]

    def _note_attempt(self, event: Kept) -> None:
        at = event.private.get("at")
        same = bool(self.attempts) and event.fields.get("attempt") == self._attempt("attempt")
        if event.name == "reset" and same:
            # A `reset` directly after the `start` of the same attempt knows who goes on, and why.
            self.attempts[-1] |= {name: event.fields.get(name) for name in ("model", "reason")}
            return
        if self.attempts:
            self.attempts[-1]["finished_at"] = at
        self.spending.next_attempt()
        self.attempts.append(
            {
                "attempt": event.fields.get("attempt"),
                "model": event.fields.get("model"),
                "worker": event.private.get("worker"),
                "started_at": at,
                "finished_at": None,
                "reason": event.fields.get("reason"),
                "usage": None,
            }
        )

    def _attempt(self, name: str) -> object:
        return self.attempts[-1][name] if self.attempts else None

    def named(self, name: str) -> list[Kept]:
        """The surviving events of one name."""
        return [event for event in self.kept if event.name == name]

    @property
    def text(self) -> str:
        """The visible text."""
        return "".join([str(event.fields["text"]) for event in self.named("text")])

    @property
    def reasoning(self) -> str:
        """The thinking text."""
        return "".join(str(event.fields["text"]) for event in self.named("reasoning"))

    @property
    def end(self) -> Kept | None:
        """The `done` or `failed`, once there is one."""
        last = self.kept[-1] if self.kept else None
        return last if last is not None and last.name in ("done", "failed") else None

    @property
    def usage(self) -> Fields | None:
        """What the message cost, once it is known."""
        usages = (event.fields for event in reversed(self.kept) if event.name == "usage")
        return next(usages, None)


def fold(frames: Sequence[Frame]) -> Message:
    """Fold a log, or the beginning of one."""
    message = Message()
    for at in range(0, len(frames), _AT_ONCE):
        message.add_frames(frames[at : at + _AT_ONCE])
    return message

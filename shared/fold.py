"""Folds a log's events to the message so far: the one place that knows what `reset` takes back."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple, cast

from rejoin.shared.events import dumps
from rejoin.shared.frames import Frame, split
from rejoin.shared.ids import EventId
from rejoin.shared.token_count import SAMPLE_CHARS

Fields = dict[str, object]

_TOOL_CALLS: Final = "tool_calls"
_AT_ONCE: Final = 500  # events decoded by one call, which lets no other thread run


@dataclass(slots=True)
class Kept:
    """One event that no `reset` took back."""

    id: EventId | None
    name: str
    fields: Fields
    private: Fields = field(default_factory=dict)


class Call(NamedTuple):
    """A model call that is over, also one whose step a `reset` took back.

    `attempt` is its attempt's place in `attempts`, `used` a Usage as its worker noted it; None:
    the worker was lost, and there are the characters that it left, with the first of them as a
    `sample`. `shown_chars` is how many it was shown, and `shown_tokens` how many tokens that is;
    None: its worker did not say.
    """

    attempt: int
    used: Fields | None
    text_chars: int
    reasoning_chars: int
    shown_chars: int | None = None
    shown_tokens: int | None = None
    sample: str = ""


@dataclass(slots=True)
class Message:
    """The message so far. Feed it every event in order; read it at any time.

    `rejected` is what each model gave for the present step that did not fit its JSON schema,
    where the model was asked again. `unseen` are attempts, by their places, that were lost when
    they were to call a model and had nothing of it yet: no later note tells what that used.

    `gap` turns true where a `reset` names an event this reader lacks: it comes back without a
    position, from the start.
    """

    kept: list[Kept] = field(default_factory=list)
    attempts: list[Fields] = field(default_factory=list)
    last_event_id: EventId | None = None
    gap: bool = False
    calls: list[Call] = field(default_factory=list)
    rejected: dict[str, str] = field(default_factory=dict)
    unseen: list[int] = field(default_factory=list)
    _text_chars: int = 0
    _reasoning_chars: int = 0
    _shown_chars: int | None = None
    _shown_tokens: int | None = None
    _sample: list[str] = field(default_factory=list)
    _to_call: bool = False  # a model, which has given nothing yet

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
        match name:  # the most frequent ones first
            case "text" | "reasoning":
                self._count_text(event)
            case "start" | "reset":
                self._begin(event)
            case "tool_call":
                self._count_call(event)
            case "step":
                self.rejected = {}
                self._end_call(event.private.get("usage"), tells_all=False)
                self._next_call()
                self._to_call = event.fields.get("finish_reason") == _TOOL_CALLS
            case "usage":
                self._to_call = False
                self._break_off(event.private.get("usage"))
                self._hear_late(event.private.get("late"))
            case "retry":
                self._to_call = False
                self._end_call(event.private.get("usage"))
            case "data" | "tool_start" | "tool_result" | "tool_error":
                self._note_shown(event.private)
        self.kept.append(event)

    def _count_text(self, event: Kept) -> None:
        if event.private:
            self._note_shown(event.private)
        text = str(event.fields["text"])
        self._to_call = False
        if self._text_chars + self._reasoning_chars < SAMPLE_CHARS:
            self._sample.append(text)
        if event.name == "text":
            self._text_chars += len(text)
        else:
            self._reasoning_chars += len(text)

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
            self._to_call = self._is_to_call()

    def _lose(self, opening: Kept) -> None:
        """Note what a call used that finished no step: as its worker says, or the next one."""
        private = opening.private
        if private.get("goes_on") or opening.fields.get("attempt") == self._attempt("attempt"):
            return  # it is under way still, or is yet to begin
        if "usage" in private:
            self._break_off(private["usage"])
        elif "lost" in private:
            self._break_off(private["lost"], tells_all=False)
        else:
            self.lose()
            self._break_off(None)

    def _is_to_call(self) -> bool:
        """Whether an attempt that begins now calls a model first: no step's calls are open."""
        for event in reversed(self.kept):
            if event.name == "step":
                return event.fields.get("finish_reason") == _TOOL_CALLS
            if event.name == "tool_call" and "usage" in event.private:
                return False
        return True

    def _count_call(self, event: Kept) -> None:
        self._to_call = False
        if "agent" in event.private:  # no model's words
            if "used" in event.private:
                self._end_call(event.private["used"])
                self._next_call()
        elif "usage" in event.private:
            # The last one of its model call, which is over with it.
            self._end_call(event.private["usage"])
            self._next_call()
        else:
            self._note_shown(event.private)
            said = str(event.fields["name"]) + dumps(event.fields["arguments"])
            self._sample.append(said[:SAMPLE_CHARS])
            self._text_chars += len(said)

    @property
    def all_calls(self) -> list[Call]:
        """The calls that are over, and the one that is under way, or was left by its worker."""
        return [*self.calls, *self.left]

    @property
    def left(self) -> list[Call]:
        """The one that is under way, or was left by its worker, where it gave anything."""
        if not (self._text_chars or self._reasoning_chars) or not self.attempts:
            return []
        return [
            Call(
                len(self.attempts) - 1,
                None,
                self._text_chars,
                self._reasoning_chars,
                self._shown_chars,
                self._shown_tokens,
                "".join(self._sample),
            )
        ]

    def hear(self, used: Fields) -> None:
        """Take what the worker of the last attempt says elsewhere: what no entry tells of yet."""
        self._to_call = False
        self._break_off(used)

    def _hear_late(self, told: object) -> None:
        """Take what workers told of attempts that had been lost to them, instead of any guess."""
        numbers = [str(attempt["attempt"]) for attempt in self.attempts]
        for number, used in told.items() if isinstance(told, dict) else ():
            if number in numbers:
                place = numbers.index(number)
                self.calls = [call for call in self.calls if call.attempt != place]
                self.calls.append(Call(place, used, 0, 0))
                self.unseen = [other for other in self.unseen if other != place]

    def lose(self) -> None:
        """Take the last attempt as lost: a call that it was to make is among `unseen` now."""
        if self._to_call and self.attempts:
            self.unseen.append(len(self.attempts) - 1)
        self._to_call = False

    def _break_off(self, used: object, *, tells_all: bool = True) -> None:
        """Note a call that never finished its step; `used` is what its worker knew of it."""
        if isinstance(used, dict):
            self._end_call(used, tells_all=tells_all)
        else:
            self.calls = self.all_calls
        self._next_call()

    def _next_call(self) -> None:
        self._text_chars = self._reasoning_chars = 0
        self._shown_chars = self._shown_tokens = None
        self._sample = []

    def _note_shown(self, private: Fields) -> None:
        """Take what a worker noted: what the call was shown, or what an agent's calls used."""
        if "usage" in private:
            self._end_call(private["usage"])
            self._next_call()
        if isinstance(shown := private.get("shown_chars"), int):
            self._next_call()
            self._shown_chars = shown
            self._shown_tokens = cast("int | None", private.get("shown_tokens"))

    def _end_call(self, used: object, *, tells_all: bool = True) -> None:
        if isinstance(used, dict):
            if tells_all:
                self.unseen = []
            self.calls.append(Call(max(0, len(self.attempts) - 1), used, 0, 0))

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
            self.kept, self.attempts, self.calls, self.last_event_id = [], [], [], None
            self.unseen = []
        elif after is None:
            self.kept = [event for event in self.kept if event.name == "start"]
        else:
            bound = EventId.parse(str(after))
            if all(event.id != bound for event in self.kept):
                self.gap = True
            self.kept = [event for event in self.kept if event.id is None or event.id <= bound]

    def _note_attempt(self, event: Kept) -> None:
        at = event.private.get("at")
        if event.name == "reset" and event.fields.get("attempt") == self._attempt("attempt"):
            # A `reset` directly after the `start` of the same attempt knows who goes on, and why.
            self.attempts[-1] |= {name: event.fields.get(name) for name in ("model", "reason")}
            return
        if self.attempts:
            self.attempts[-1]["finished_at"] = at
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

"""Counts the model calls that a log tells of: those that are over, and the one under way."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, cast

from rejoin.shared.events import Fields, dumps
from rejoin.shared.token_count import SAMPLE_CHARS


class Call(NamedTuple):
    """A model call that is over, also one whose step a `reset` took back.

    `attempt` is its attempt's place among all, `used` a Usage as its worker noted it; None: the
    worker was lost, and there are the characters that it left, with the first of them as a
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
class Spending:
    """The model calls of a message so far, as the fold of its log finds them.

    `calls` are over. `unseen` are attempts, by their places, that were lost when they were to call
    a model and had nothing of it yet: no later note tells what that used. `to_call`: the present
    attempt is to call a model, which has given nothing yet.
    """

    calls: list[Call] = field(default_factory=list)
    unseen: list[int] = field(default_factory=list)
    to_call: bool = False
    _attempts: int = 0
    _text_chars: int = 0
    _reasoning_chars: int = 0
    _shown_chars: int | None = None
    _shown_tokens: int | None = None
    _sample: list[str] = field(default_factory=list)

    @property
    def all_calls(self) -> list[Call]:
        """The calls that are over, and the one that is under way, or was left by its worker."""
        return [*self.calls, *self.left]

    @property
    def left(self) -> list[Call]:
        """The one that is under way, or was left by its worker, where it gave anything."""
        if not (self._text_chars or self._reasoning_chars) or not self._attempts:
            return []
        return [
            Call(
                self._attempts - 1,
                None,
                self._text_chars,
                self._reasoning_chars,
                self._shown_chars,
                self._shown_tokens,
                "".join(self._sample),
            )
        ]

    def forget(self) -> None:
        """Forget all: the log is told from its start."""
        self.calls, self.unseen, self._attempts = [], [], 0

    def next_attempt(self) -> None:
        """Count what follows to another attempt."""
        self._attempts += 1

    def text(self, text: str, private: Fields, *, thought: bool) -> None:
        """Count a piece of a model's text, or of its thoughts."""
        if private:
            self.note(private)
        self.to_call = False
        if self._text_chars + self._reasoning_chars < SAMPLE_CHARS:
            self._sample.append(text)
        if thought:
            self._reasoning_chars += len(text)
        else:
            self._text_chars += len(text)

    def tool_call(self, fields: Fields, private: Fields) -> None:
        """Count a call of a tool, which may be the last of its model call."""
        self.to_call = False
        if "agent" in private:  # no model's words
            if "used" in private:
                self._end_call(private["used"])
                self._next_call()
        elif "usage" in private:
            # The last one of its model call, which is over with it.
            self._end_call(private["usage"])
            self._next_call()
        else:
            self.note(private)
            said = str(fields["name"]) + dumps(fields["arguments"])
            self._sample.append(said[:SAMPLE_CHARS])
            self._text_chars += len(said)

    def step(self, private: Fields, *, calls_tools: bool) -> None:
        """Take a step as finished; the next one calls a model where this one called tools."""
        self._end_call(private.get("usage"), tells_all=False)
        self._next_call()
        self.to_call = calls_tools

    def retry(self, private: Fields) -> None:
        """Take a call as failed, before it gave anything."""
        self.to_call = False
        self._end_call(private.get("usage"))

    def usage(self, private: Fields, places: Mapping[str, int]) -> None:
        """Take what the message's last worker tells; `places` are the attempts', by their numbers.

        What workers told late of attempts that had been lost to them counts instead of any guess.
        """
        self.hear(private.get("usage"))
        late = private.get("late")
        for number, used in late.items() if isinstance(late, dict) else ():
            if (place := places.get(number)) is not None:
                self.calls = [call for call in self.calls if call.attempt != place]
                self.calls.append(Call(place, used, 0, 0))
                self.unseen = [other for other in self.unseen if other != place]

    def next_worker(self, private: Fields) -> None:
        """Note what a call used that finished no step: as its worker says, or the next one."""
        if "usage" in private:
            self._break_off(private["usage"])
        elif "lost" in private:
            self._break_off(private["lost"], tells_all=False)
        else:
            self.lose()
            self._break_off(None)

    def hear(self, used: object) -> None:
        """Take what the worker of the last attempt says elsewhere: what no entry tells of yet."""
        self.to_call = False
        self._break_off(used)

    def lose(self) -> None:
        """Take the last attempt as lost: a call that it was to make is among `unseen` now."""
        if self.to_call and self._attempts:
            self.unseen.append(self._attempts - 1)
        self.to_call = False

    def note(self, private: Fields) -> None:
        """Take what a worker noted: what the call was shown, or what an agent's calls used."""
        if "usage" in private:
            self._end_call(private["usage"])
            self._next_call()
        if isinstance(shown := private.get("shown_chars"), int):
            self._next_call()
            self._shown_chars = shown
            self._shown_tokens = cast("int | None", private.get("shown_tokens"))

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

    def _end_call(self, used: object, *, tells_all: bool = True) -> None:
        if isinstance(used, dict):
            if tells_all:
                self.unseen = []
            self.calls.append(Call(max(0, self._attempts - 1), used, 0, 0))

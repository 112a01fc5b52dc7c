"""Models that break anywhere in their answer, or win, in each provider's wire format.

A model that is not told to break wins: it calls the tool `look` where there is one and it was not
called yet, and else answers.
"""

import json
from collections.abc import Callable, Sequence
from typing import Any, Final

from tests.support.pairing_rules import CALLS, rules_for
from tests.support.provider_script import Answer, Part, Request, simulated_words
from tests.support.provider_server import ProviderServer
from tests.support.tool_talk import results_in
from tests.support.wire_answers import Spoken, environ_of, spoken, whole

WORDS: Final = simulated_words(60)  # of the model that breaks
WON: Final = ("Für ", "dich: ", "\n\n", "日本 ", "🙂", " — ", 'ein "Wort"', "\\", " ", "mehr.")
LOOKS: Final = ("Ich ", "sehe ", "nach. ")  # before the winning model's call
ARGUMENTS: Final = {"at": "wörld", "deep": {"n": 1}}
SPOKEN_ARGUMENTS: Final = json.dumps(ARGUMENTS, ensure_ascii=False)

Break = Callable[[Spoken], Sequence[Part]]


def after(words: int, *how: Part) -> Break:
    """Break after so many words, by `how`; a clean end where it is nothing."""
    return lambda said: [*said.begin(), *said.words(*WORDS[:words]), *how]


def bad_line_after(words: int) -> Break:
    """One line that is no JSON, and then the rest as if nothing had been."""
    return lambda said: [
        *said.begin(),
        *said.words(*WORDS[:words]),
        *said.bad_line(),
        *said.words(*WORDS[words:]),
        *said.end(),
    ]


def error_after(words: int) -> Break:
    """The provider's own word of an error."""
    return lambda said: [*said.begin(), *said.words(*WORDS[:words]), *said.error()]


def in_arguments(chars: int, *how: Part, first: bool = True) -> Break:
    """Break after so many characters of a call's arguments; not `first`: of a second call's."""

    def broken(said: Spoken) -> Sequence[Part]:
        frames = [*said.begin(), *said.words(*WORDS[:2])]
        if not first:
            frames += said.call("call_a", "look", SPOKEN_ARGUMENTS)
        return [*frames, *said.call("call_b", "look", *SPOKEN_ARGUMENTS[:chars]), *how]

    return broken


def bad_line_in_arguments(said: Spoken) -> Sequence[Part]:
    """One line that is no JSON between the pieces of a call's arguments."""
    pieces = [*said.begin(), *said.call("call_b", "look", '{"at":')]
    return [*pieces, *said.bad_line(), *said.end(calls=True)]


class BreakingProvider(ProviderServer):
    """A server of one format; `answers_of` has what the models do that are not to win."""

    def __init__(self, wire: str) -> None:
        super().__init__(lists_models=True, pairing=rules_for(wire), answers=self._answer_to)
        self.wire = wire
        self.answers_of: dict[str, Callable[[Request], Answer]] = {}

    def environ(self) -> dict[str, str]:
        """The settings that lead to it."""
        return environ_of(self.wire, self.base_url)

    def asked(self, message_id: str) -> list[Request]:
        """What it was asked for a message, in order."""
        return [
            one for one in self.requests if one.headers.get("x-client-request-id") == message_id
        ]

    def breaks(
        self, model: str, broken: Break, *, from_call: int = 1, times: int | None = None
    ) -> str:
        """Let a model break in its so manieth call, and so often, and win else; its whole name."""
        calls = 0

        def answer(request: Request) -> Answer:
            nonlocal calls
            calls += 1
            if calls < from_call or (times is not None and calls >= from_call + times):
                return self._win(request)
            return Answer(broken(spoken(self.wire, model)))

        self.answers_of[model] = answer
        return f"{self.wire}/{model}"

    def refuses(self, model: str, refused: Answer) -> str:
        """Let a model refuse all calls; its whole name."""
        self.answers_of[model] = lambda _: refused
        return f"{self.wire}/{model}"

    def _answer_to(self, request: Request) -> Answer:
        if not request.path.partition("?")[0].endswith(CALLS):  # Ollama's own list
            return Answer([b'{"models":[]}'], content_type="application/json")
        return self.answers_of.get(str(request.json["model"]), self._win)(request)

    def _win(self, request: Request) -> Answer:
        """Call the tool where there is one and it was not called; else answer."""
        body: Any = request.json
        if not body.get("tools") or results_in(body):
            return Answer(whole(self.wire, body["model"], *WON))
        said = spoken(self.wire, body["model"])
        half = len(SPOKEN_ARGUMENTS) // 2
        pieces = (SPOKEN_ARGUMENTS[:half], SPOKEN_ARGUMENTS[half:])
        frames = [*said.begin(), *said.words(*LOOKS)]
        return Answer([*frames, *said.call("call_w", "look", *pieces), *said.end(calls=True)])

"""A model with one answer, that really goes on with a part of it that it is shown.

Shown no part, it gives its text from the start. Shown one as the last turn, an assistant's, it
goes on behind the last character, mid-word or not, as providers with a prefix do
(`PREFIX`), or refuses, or begins a new answer, as others do. Asked by a user's turn after the
part, it goes on too, and may first repeat the last words of it. A part that is none of its
text is noted as a stray, and gets another answer, so that no test can take it for its own.
"""

import re
from collections import deque
from collections.abc import Mapping
from typing import Any, Final

from tests.support.pairing_rules import rules_for
from tests.support.provider_script import Answer, Drop, Part, Request
from tests.support.provider_server import ProviderServer
from tests.support.wire_answers import environ_of, refusal, spoken

DROP: Final = Drop()
STRAY: Final = ("something ", "else")
NO_PREFILL: Final = (
    "This model does not support assistant message prefill. The conversation must end with a"
    " user message."
)

Body = Mapping[str, Any]


class ContinuingProvider(ProviderServer):
    """The server. `prefixes` and `asked` are the parts that it went on with, in order.

    `prefix`: what it does of a last turn that is an assistant's: "continue", "refuse" (a 400), or
    "anew" (another answer from the start). `repeats`: how many words, or with `repeats_chars`
    characters, of the part it says again where a turn asked it to go on. `piece_chars`: pieces of
    so many characters; None: word by word.
    """

    def __init__(
        self,
        wire: str,
        text: str,
        *,
        prefix: str = "continue",
        repeats: int = 0,
        repeats_chars: int = 0,
        piece_chars: int | None = None,
    ) -> None:
        super().__init__(lists_models=True, pairing=rules_for(wire), answers=self._answer_to)
        self.wire = wire
        self.text = text
        self.prefixes: list[str] = []
        self.asked: list[str] = []
        self.strays: list[str] = []
        self.begun = 0
        self._prefix = prefix
        self._repeats, self._repeats_chars = repeats, repeats_chars
        self._piece_chars = piece_chars
        self._breaks: deque[tuple[int, Part | None]] = deque()

    def environ(self) -> dict[str, str]:
        """The settings that lead to it."""
        return environ_of(self.wire, self.base_url)

    def break_off(self, *after: int, how: Part | None = DROP) -> None:
        """End the next answers after so many pieces each, by `how`; None: a clean end."""
        self._breaks += [(pieces, how) for pieces in after]

    def pieces(self, text: str) -> list[str]:
        """A text as it is sent."""
        if self._piece_chars is None:
            return re.findall(r"\s*\S+\s?|\s+$", text)
        size = self._piece_chars
        return [text[at : at + size] for at in range(0, len(text), size)]

    def _answer_to(self, request: Request) -> Answer:
        if request.method == "GET":  # Ollama's own list
            return Answer([b'{"models":[]}'], content_type="application/json")
        messages = [one for one in request.json["messages"] if one["role"] != "system"]
        said = self._said(messages, request.json)
        if isinstance(said, Answer):
            return said
        return Answer(self._parts(str(request.json["model"]), said))

    def _said(self, messages: list[Body], body: Body) -> str | Answer:
        """What follows the part that the messages show."""
        if messages[-1]["role"] == "assistant":
            part = text_of(messages[-1])
            if self._prefix == "refuse":
                return refusal(self.wire, 400, NO_PREFILL)
            if self._prefix == "continue" and not self._known(part):
                return "".join(STRAY)
            if self._prefix == "continue":
                self.prefixes.append(part)
                return self.text[len(part) :]
        elif len(messages) > 1 and messages[-2]["role"] == "assistant":
            part = text_of(messages[-2])
            if not self._known(part):
                return "".join(STRAY)
            self.asked.append(part)
            return self._again(part) + self.text[len(part) :]
        self.begun += 1
        return self.text

    def _known(self, part: str) -> bool:
        known = bool(part) and self.text.startswith(part)
        if not known:
            self.strays.append(part)
        return known

    def _again(self, part: str) -> str:
        """The words, or characters, that it says again."""
        if self._repeats_chars:
            return part[-self._repeats_chars :]
        words = re.findall(r"\S+\s*", part)
        return "".join(words[-self._repeats :]) if self._repeats else ""

    def _parts(self, model: str, said: str) -> list[Part]:
        answer, pieces = spoken(self.wire, model), self.pieces(said)
        used = (7, len(pieces))
        if not self._breaks:
            return [*answer.begin(), *answer.words(*pieces), *answer.end(used=used)]
        after, how = self._breaks.popleft()
        parts: list[Part] = [*answer.begin(), *answer.words(*pieces[:after])]
        return parts if how is None else [*parts, how]


def text_of(message: Body) -> str:
    """A message's text."""
    content = message["content"]
    if isinstance(content, str):
        return content
    return "".join(part["text"] for part in content if part["type"] == "text")

"""A model with one answer, that really goes on with a part of it that it is shown.

Shown no part, it gives its text from the start. Shown one as the last turn, an assistant's, it
goes on behind the last character, mid-word or not, as providers with a prefix do, or refuses, or
begins anew, as others do. Asked by a user's turn after the part, it goes on too, and may first
repeat some of it. A part that is none of its text is noted as a stray, and gets another answer,
so that no test can take it for its own.
"""

import json
import re
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Final

from tests.support.pairing_rules import CALLS, rules_for
from tests.support.provider_script import Answer, Drop, Part, Request
from tests.support.provider_server import ProviderServer
from tests.support.wire_answers import environ_of, refusal, spoken

DROP: Final = Drop()
TOLD: Final = "told"
ALL: Final = "all"
STRAY: Final = ("something ", "else")
NO_PREFILL: Final = (
    "This model does not support assistant message prefill. The conversation must end with a"
    " user message."
)

Body = Mapping[str, Any]


class ContinuingProvider(ProviderServer):
    """The server. `prefixes` and `asked` are the parts that it went on with, in order.

    `prefix`: what it does of a last turn that is an assistant's: "continue", "refuse" (a 400), or
    "anew" (another answer from the start). One of OpenAI's format is a vLLM's, by its list of
    `models` too, and goes on where `continue_final_message` asks for it. `repeats`: how many words
    of the part it says again where a turn asked it to go on; TOLD: those that end the turn, as
    far as they end the part; ALL: the whole part. `piece_chars`: pieces of so many characters;
    None: word by word.
    """

    def __init__(
        self,
        wire: str,
        text: str,
        *,
        prefix: str = "continue",
        repeats: int | str = 0,
        piece_chars: int | None = None,
        models: Sequence[str] = (),
    ) -> None:
        super().__init__(pairing=rules_for(wire), answers=self._answer_to)
        self.wire = wire
        self.text = text
        self.prefixes: list[str] = []
        self.asked: list[str] = []
        self.strays: list[str] = []
        self.begun = 0
        self._prefix = prefix
        self._repeats = repeats
        self._piece_chars = piece_chars
        self._models = models
        self._breaks: dict[str, deque[tuple[int, Part | None]]] = {}

    def environ(self) -> dict[str, str]:
        """The settings that lead to it."""
        return environ_of(self.wire, self.base_url)

    def break_off(self, message_id: str, *after: int, how: Part | None = DROP) -> None:
        """End a message's next answers after so many pieces each, by `how`; None: a clean end."""
        self._breaks.setdefault(message_id, deque()).extend((pieces, how) for pieces in after)

    def pieces(self, text: str) -> list[str]:
        """A text as it is sent."""
        if self._piece_chars is None:
            return re.findall(r"^\s+|\S+\s*", text)
        size = self._piece_chars
        return [text[at : at + size] for at in range(0, len(text), size)]

    def _answer_to(self, request: Request) -> Answer:
        if not request.path.partition("?")[0].endswith(CALLS):
            return self._list()
        body: Body = request.json
        messages = [one for one in body["messages"] if one["role"] != "system"]
        said = self._said(messages, body)
        return said if isinstance(said, Answer) else self._say(request, said)

    def _list(self) -> Answer:
        own = {"object": "model", "owned_by": "vllm"}
        listed = [{"id": name, "name": name, "model": name, **own} for name in self._models]
        body = json.dumps({"object": "list", "data": listed, "models": listed})
        return Answer([body.encode()], content_type="application/json")

    def _said(self, messages: list[Body], body: Body) -> str | Answer:
        """What follows the part that the messages show."""
        if messages[-1]["role"] == "assistant":
            part = text_of(messages[-1])
            if self._prefix == "refuse":
                return refusal(self.wire, 400, NO_PREFILL)
            if self._prefix == "continue" and _open_end(self.wire, body):
                if not self._known(part):
                    return "".join(STRAY)
                self.prefixes.append(part)
                return self.text[len(part) :]
        elif len(messages) > 1 and messages[-2]["role"] == "assistant":
            part = text_of(messages[-2])
            if not self._known(part):
                return "".join(STRAY)
            self.asked.append(part)
            return self._again(part, text_of(messages[-1])) + self.text[len(part) :]
        self.begun += 1
        return self.text

    def _known(self, part: str) -> bool:
        known = bool(part) and self.text.startswith(part)
        if not known:
            self.strays.append(part)
        return known

    def _again(self, part: str, turn: str) -> str:
        """What it says again of the part, asked by this turn."""
        match self._repeats:
            case "all":
                return part
            case "told":
                shown = part.rstrip()
                starts = range(len(shown))
                told = next((at for at in starts if turn.rstrip().endswith(shown[at:])), len(part))
                return part[told:]
            case int(words) if words:
                return "".join(re.findall(r"\S+\s*", part)[-words:])
        return ""

    def _say(self, request: Request, said: str) -> Answer:
        """The answer, broken off where it is to be."""
        answer, pieces = spoken(self.wire, str(request.json["model"])), self.pieces(said)
        breaks = self._breaks.get(request.headers.get("x-client-request-id", ""))
        if not breaks:
            used = (7, len(pieces))
            return Answer([*answer.begin(), *answer.words(*pieces), *answer.end(used=used)])
        after, how = breaks.popleft()
        parts: list[Part] = [*answer.begin(), *answer.words(*pieces[:after])]
        return Answer(parts if how is None else [*parts, how])


def _open_end(wire: str, body: Body) -> bool:
    """Whether a last turn is left open; a vLLM is told so."""
    told = (body.get("continue_final_message"), body.get("add_generation_prompt"))
    return wire != "openai" or told == (True, False)


def text_of(message: Body) -> str:
    """A message's text."""
    content = message["content"]
    if isinstance(content, str):
        return content
    return "".join(part["text"] for part in content if part["type"] == "text")

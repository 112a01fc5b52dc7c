"""The provider simulator's own ledger: what each answer took and gave, as its wire had it.

A token is four characters, as for whoever has to guess: so a bill that differs has left out a call
or counted one twice, and the guess itself is no part of the check. The usage that it sends says
what the ledger says.

It bills as providers do: an answer that it refuses, or fails by itself before the first token, is
free; one that its client leaves before that costs its input.
"""

import json
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Final
from urllib.parse import parse_qsl

from tests.support.provider_script import Answer, Drop, Part, Request, Reset, sse
from tests.support.provider_server import parts_of

CHARACTERS_A_TOKEN: Final = 4
_ERROR: Final = 400


@dataclass(slots=True)
class Entry:
    """One answer: `number` is its message's, and the tokens are those on the wire.

    `reported`: its usage was sent. `failed`: it broke off by itself, or was broken by plan.
    `whole`: it was sent to its end; `at_once`: as fast as the sockets took it. `began` and `sent`
    are when its request came, and when its last part was sent, in seconds since the epoch.
    """

    number: int
    model: str
    input_chars: int
    output_chars: int = 0
    reported: bool = False
    failed: bool = False
    whole: bool = False
    at_once: bool = False
    began: float = 0.0
    sent: float = 0.0

    @property
    def input(self) -> int:
        """The tokens it read, as it bills them."""
        return 0 if self.failed and not self.output_chars else tokens(self.input_chars)

    @property
    def output(self) -> int:
        """The tokens it gave."""
        return tokens(self.output_chars)

    @property
    def left(self) -> bool:
        """Whether its client left before its end."""
        return not self.failed and not self.whole


class Ledger:
    """All answers, in the order of their requests."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []

    def noting(self, request: Request, answer: Answer) -> Answer:
        """Return the answer as it is to be sent: what is sent of it is noted."""
        if answer.status >= _ERROR:
            return answer
        model = str(request.json["model"])
        options = dict(parse_qsl(model.partition("?")[2]))
        entry = Entry(int(options.get("n", -1)), model, _shown(request.json))
        entry.at_once = not float(options.get("rate", 0))
        entry.began = entry.sent = request.at
        self.entries.append(entry)
        return answer if answer.silent else replace(answer, parts=_noted(entry, answer))

    def told(self) -> bytes:
        """The entries as JSON."""
        return json.dumps([asdict(entry) for entry in self.entries]).encode()


def read_ledger(told: list[dict[str, Any]]) -> list[Entry]:
    """What `told` tells."""
    return [Entry(**fields) for fields in told]


def tokens(characters: int) -> int:
    """How many tokens so many characters are."""
    return -(-characters // CHARACTERS_A_TOKEN)


async def _noted(entry: Entry, answer: Answer) -> AsyncIterator[Part]:
    finished = False
    async for part in parts_of(answer.parts):
        chunk = _chunk(part)
        if chunk.get("usage"):
            entry.reported = True
            yield sse(chunk | {"usage": _usage(entry)})
            continue
        # Nothing is asked for after a part that the client did not stay for.
        entry.failed = entry.failed or isinstance(part, Drop | Reset)
        finished = finished or any(choice["finish_reason"] for choice in chunk.get("choices", ()))
        yield part
        entry.sent = time.time()
        entry.output_chars += sum(map(_given, chunk.get("choices", ())))
    entry.whole, entry.failed = finished, not finished


def _chunk(part: Part) -> dict[str, Any]:
    if not isinstance(part, bytes) or not part.startswith(b"data: {"):
        return {}
    try:
        chunk = json.loads(part.removeprefix(b"data: "))
    except ValueError:
        return {}
    return chunk if isinstance(chunk, dict) else {}


def _given(choice: Mapping[str, Any]) -> int:
    delta = choice["delta"]
    said = (delta.get("content") or "", delta.get("reasoning_content") or "")
    calls = (call["function"] for call in delta.get("tool_calls", ()))
    asked = sum(len(call.get("name", "")) + len(call.get("arguments", "")) for call in calls)
    return sum(map(len, said)) + asked


def _shown(body: Mapping[str, Any]) -> int:
    """The characters of a request's messages, and of the tools that it offers."""
    shown = 0
    for message in body["messages"]:
        shown += len(message.get("content") or "")
        for call in message.get("tool_calls", ()):
            shown += len(call["function"]["name"]) + len(call["function"]["arguments"])
    for tool in body.get("tools", ()):
        made = tool["function"]
        shown += len(made["name"]) + len(made.get("description", ""))
        shown += len(json.dumps(made.get("parameters", {}), separators=(",", ":")))
    return shown


def _usage(entry: Entry) -> dict[str, int]:
    given = {"prompt_tokens": entry.input, "completion_tokens": entry.output}
    return given | {"total_tokens": sum(given.values())}

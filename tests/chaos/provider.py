"""The chaos run's provider: what models' names say, also with tools, and it refuses bad histories.

`openai/sim?words=5&rate=20&steps=pay:,send:;fetch:cut` calls tools in its first two steps, as
tool_plan.py writes it, and then answers. A step has its own `words`, which go on from those of
the step before. `fault`, `times` and `at` as in `simulate`, in the step `in` (from 0); an `at`
beyond the words is in the midst of a call's arguments. `ids`: `same` ones in each step, or `none`.

Asked to go on with a part of an answer, it repeats what it is told to, and goes on; with a part
that is none of it, it says something else.

`python -m tests.chaos.provider` prints its port; `GET /refusals` tells what it refused, and
`GET /ledger` what it billed.
"""

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import inf
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl

import uvloop

from tests.chaos.ledger import Ledger
from tests.chaos.tool_plan import CallPlan, Trouble, read_option
from tests.support.pairing_rules import rules_for
from tests.support.provider_script import (
    FAULTS,
    Answer,
    Part,
    Pause,
    Request,
    choice,
    completion_chunk,
    error_answer,
    simulate,
    simulated_words,
    sse,
)
from tests.support.provider_server import HOST, ProviderServer, parts_of

_REFUSALS: Final = "/refusals"
_LEDGER: Final = "/ledger"
FIRST_TOKEN_SECONDS: Final = 0.5
_WELL: Final = 200
_GO_ON: Final = "[Your answer was cut off."


class ChaosProvider(ProviderServer):
    """The server; it holds each history to the rules of OpenAI's own."""

    def __init__(self) -> None:
        super().__init__(lists_models=True, pairing=rules_for("openai"), answers=self._noted)
        self._ledger = Ledger()

    async def next_answer(self, request: Request) -> Answer:
        """Tell of the refusals or the ledger, or choose the request's answer."""
        if request.path == _REFUSALS:
            told = [refusal.decode() for refusal in self.refusals]
            return Answer([json.dumps(told).encode()], content_type="application/json")
        if request.path == _LEDGER:
            return Answer([self._ledger.told()], content_type="application/json")
        return await super().next_answer(request)

    def _noted(self, request: Request) -> Answer:
        answer = self._answer_to(request)
        if answer.status == _WELL:
            answer.parts = _after_a_while(answer.parts)
        return self._ledger.noting(request, answer)

    def _answer_to(self, request: Request) -> Answer:
        model = str(request.json["model"])
        options = dict(parse_qsl(model.partition("?")[2]))
        asked = Asked.of(request.json["messages"])
        if "steps" not in options and asked.part is None:
            return simulate(request, self.seen)
        step, fault = steps_done(asked.messages), options.get("fault", "")
        if fault and step == int(options.get("in", 0)):
            self.seen[model] += 1
            fault = fault if self.seen[model] <= float(options.get("times", inf)) else ""
        else:
            fault = ""
        if fault == "silent":
            return Answer(silent=True)
        if fault.isdigit():
            return error_answer(int(fault), f"Simulated error {fault}.")
        return Answer(_parts(model, options, step, fault, asked))


async def _after_a_while(parts: Iterable[Part] | AsyncIterator[Part]) -> AsyncIterator[Part]:
    """The parts, after a model's usual time until its first token."""
    yield Pause(FIRST_TOKEN_SECONDS)
    async for part in parts_of(parts):
        yield part


class Asked(NamedTuple):
    """What a request asks for: an answer to `messages`, behind the `part` of it that was given.

    `told` are the words of the part with which it is to begin. None: an answer from its start.
    """

    messages: Sequence[Mapping[str, Any]]
    part: str | None = None
    told: str = ""

    @classmethod
    def of(cls, messages: Any) -> "Asked":
        """Read a request's messages."""
        said = str(messages[-1].get("content") or "")
        if messages[-1]["role"] == "user" and said.startswith(_GO_ON):
            *_, told = said.partition("\n\n")
            return cls(messages[:-2], str(messages[-2]["content"]), told)
        return cls(messages)


def steps_done(messages: Any) -> int:
    """How many model calls of the present message called tools, by the history."""
    steps = 0
    for message in messages:
        if message["role"] == "user":
            steps = 0
        elif message.get("tool_calls"):
            steps += 1
    return steps


async def _parts(
    model: str, options: Mapping[str, str], step: int, fault: str, asked: Asked
) -> AsyncIterator[Part]:
    count, rate = int(options["words"]), float(options["rate"])
    steps = read_option(options.get("steps", ""))
    calls = steps[step] if step < len(steps) else []
    at = int(options.get("at", 0))
    yield sse(completion_chunk(model, choices=choice({"role": "assistant", "content": ""})))
    for n, word in _words(step, count, asked):
        if fault and n >= at:
            for part in FAULTS[fault]:
                yield part
            return
        await asyncio.sleep(1 / rate if rate else 0)
        yield sse(completion_chunk(model, choices=choice({"content": word})))
    for n, call in enumerate(calls):
        for piece in _call_chunks(model, n, call, options.get("ids", "same")):
            yield piece
            await asyncio.sleep(0.01)
            if fault and at == count + n:
                for part in FAULTS[fault]:
                    yield part
                return
    reason = "tool_calls" if calls else "stop"
    yield sse(completion_chunk(model, choices=choice({}, reason)))
    usage = {"prompt_tokens": 7, "completion_tokens": count, "total_tokens": 7 + count}
    yield sse(completion_chunk(model, usage=usage))
    yield sse("[DONE]")


def _words(step: int, count: int, asked: Asked) -> Iterator[tuple[int, str]]:
    """A step's words, each with its place; of one that is gone on with what it was told, and on."""
    words = simulated_words((step + 1) * count)[step * count :]
    if asked.part is None:
        yield from enumerate(words)
        return
    text = "".join(words)
    if not text.startswith(asked.part) or not asked.part.rstrip().endswith(asked.told):
        yield 0, "something else"
        return
    place = asked.part.count(" ")
    rest = text[len(asked.part.rstrip()) :]
    for n, word in enumerate(re.findall(r"\S+\s*|^\s+", asked.told + rest)):
        yield max(0, place + n - len(asked.told.split())), word


def _call_chunks(model: str, index: int, call: CallPlan, ids: str) -> Sequence[bytes]:
    """A call as OpenAI streams it: its name first, then its arguments in two pieces."""
    made = {"index": index, "type": "function"} | ({"id": f"call_{index}"} if ids == "same" else {})
    text = json.dumps(call.arguments)
    text = '{"mark": "st' if call.trouble is Trouble.CUT else text
    half = len(text) // 2
    deltas: list[dict[str, object]] = [
        made | {"function": {"name": call.name, "arguments": text[:half]}},
        {"index": index, "function": {"arguments": text[half:]}},
    ]
    return [
        sse(completion_chunk(model, choices=choice({"tool_calls": [delta]}))) for delta in deltas
    ]


@contextmanager
def chaos_provider() -> Iterator[str]:
    """Run the provider as a process of its own; give its root, without `/v1`."""
    command = [sys.executable, "-m", "tests.chaos.provider"]
    root = Path(__file__).parents[2]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            yield f"http://{HOST}:{int(process.stdout.readline())}"
        finally:
            process.kill()


async def _main() -> None:
    async with ChaosProvider() as server:
        sys.stdout.write(f"{server.port}\n")
        sys.stdout.flush()
        await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_main())

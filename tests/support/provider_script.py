"""What a provider server can be told to answer, and answers named by the model (`simulate`)."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qsl

_WORDS: Final = ("plain", "naïve", "日本", "tea", "🙂", "word")


@dataclass(frozen=True)
class Pause:
    """Wait so long before the next part."""

    seconds: float


@dataclass(frozen=True)
class Hold:
    """Send nothing more, and keep the connection until the client leaves."""


@dataclass(frozen=True)
class Reset:
    """Break the connection with a TCP reset."""


@dataclass(frozen=True)
class Drop:
    """Close the connection without the body's end."""


Part = bytes | Pause | Hold | Reset | Drop


@dataclass
class Answer:
    """One answer. `parts` are sent in order, each bytes as a piece of the body of its own.

    `split` cuts the bytes anew, into pieces of so many; `silent` answers nothing at all.
    """

    parts: Iterable[Part] | AsyncIterator[Part] = ()
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str = "text/event-stream; charset=utf-8"
    split: int = 0
    silent: bool = False


@dataclass
class Request:
    """What a client asked, and how it went on."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    at: float = field(default_factory=time.time)
    pieces: int = 0
    answered: asyncio.Event = field(default_factory=asyncio.Event)
    disconnected: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def json(self) -> dict[str, object]:
        """The body."""
        parsed = json.loads(self.body)
        assert isinstance(parsed, dict)
        return parsed


def completion_chunk(model: str, **members: object) -> dict[str, object]:
    """A chat.completion.chunk as OpenAI sends it, with these members replaced."""
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1_760_000_000}
    return {**head, "model": model, "choices": [], **members}


def choice(delta: Mapping[str, object], finish_reason: str | None = None) -> list[object]:
    """The `choices` of a chunk."""
    return [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}]


def sse(value: object, newline: str = "\n") -> bytes:
    """One SSE event; a string is sent as it is."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return f"data: {text}{newline}{newline}".encode()


def error_answer(
    status: int, message: str, *, headers: Mapping[str, str] | None = None, **members: object
) -> Answer:
    """An error before the stream, in OpenAI's shape."""
    error = {"message": message, "type": None, "param": None, "code": None, **members}
    body = json.dumps({"error": error}).encode()
    return Answer([body], status, headers or {}, "application/json")


def simulated_words(count: int) -> list[str]:
    """The words of a simulated answer, each with its space: they tell their own place."""
    return [f"{_WORDS[n % len(_WORDS)]}{n} " for n in range(count)]


def simulated_text(count: int) -> str:
    """What a whole simulated answer of so many words says."""
    return "".join(simulated_words(count))


def simulate(request: Request, seen: Counter[str]) -> Answer:
    """Answer by the model's name, `sim?words=300&rate=50`.

    - `words` (100), or `says` (a text, in pieces of two characters), `rate` a second (0: at
      once), `delay` seconds before the first word,
      `reasoning` words of thinking first, `split` bytes a piece.
    - `fault` at the `at`-th word: `eof` (a clean end), `drop`, `reset`, `stall`, `error` (an
      error object), `junk` (no JSON); or instead of an answer: `silent`, `empty`, `html`,
      `context`, `filter`, `leak` (a 401 that repeats the key), or a status (`429`, with
      `retry_after` seconds); or `other`: all is well, but it says "something else".
    - `calls`: names of tools, with commas, that it calls after its words; told their results it
      answers with them, and with a space after each.
    - `times`: only so many first requests for this very name meet the fault.
    """
    model = str(request.json.get("model", ""))
    options = dict(parse_qsl(model.partition("?")[2]))
    fault = options.get("fault", "")
    if fault and "times" in options:
        seen[model] += 1
        if seen[model] > int(options["times"]):
            fault = ""
    split = int(options.get("split", 0))
    match fault:
        case "silent":
            return Answer(silent=True)
        case "empty":
            return Answer()
        case "html":
            return Answer([b"<html><body>Bad gateway</body></html>"], content_type="text/html")
        case "context":
            said = "This model's maximum context length is 8192 tokens."
            return error_answer(400, said, code="context_length_exceeded")
        case "filter":
            said = "The response was filtered due to the prompt."
            return error_answer(400, said, code="content_filter")
        case "leak":
            said = f"Incorrect API key provided: {request.headers.get('authorization')}."
            return error_answer(401, said, code="invalid_api_key")
        case _ if fault.isdigit():
            after = options.get("retry_after")
            headers = {"Retry-After": after} if after else {}
            return error_answer(int(fault), f"Simulated error {fault}.", headers=headers)
    return Answer(_simulated_parts(request, options, fault), split=split)


async def _simulated_parts(
    request: Request, options: Mapping[str, str], fault: str
) -> AsyncIterator[Part]:
    model = str(request.json["model"])
    words = simulated_words(int(options.get("words", 100)))
    says, fault = ("something else", "") if fault == "other" else (options.get("says"), fault)
    if says:
        words = [says[at : at + 2] for at in range(0, len(says), 2)]
    results, calls = _tool_results(request), options.get("calls", "").split(",")
    if results:
        words, calls = [f"{result} " for result in results], []
    rate, at = float(options.get("rate", 0)), int(options.get("at", len(words) // 2))
    yield sse(completion_chunk(model, choices=choice({"role": "assistant", "content": ""})))
    await asyncio.sleep(float(options.get("delay", 0)))
    for n in range(int(options.get("reasoning", 0))):
        yield sse(completion_chunk(model, choices=choice({"reasoning_content": f"so{n} "})))
    clock = asyncio.get_running_loop().time
    started = clock()
    for n, word in enumerate(words):
        if rate:
            await asyncio.sleep(started + n / rate - clock())
        if fault and n == at:
            for part in FAULTS[fault]:
                yield part
            return
        yield sse(completion_chunk(model, choices=choice({"content": word})))
    calls = [name for name in calls if name]
    for n, name in enumerate(calls):
        made = {"index": n, "id": f"call_{n}", "type": "function"}
        asked = made | {"function": {"name": name, "arguments": "{}"}}
        yield sse(completion_chunk(model, choices=choice({"tool_calls": [asked]})))
    reason = "tool_calls" if calls else "stop"
    yield sse(completion_chunk(model, choices=choice({}, reason)))
    usage = {"prompt_tokens": 7, "completion_tokens": len(words), "total_tokens": 7 + len(words)}
    yield sse(completion_chunk(model, usage=usage))
    yield sse("[DONE]")


def _tool_results(request: Request) -> list[str]:
    """What a request says of the tools that the answer before called."""
    messages = request.json.get("messages")
    results: list[str] = []
    for message in reversed(messages if isinstance(messages, list) else []):
        if message["role"] != "tool":
            break
        results.insert(0, str(message["content"]))
    return results


FAULTS: Final[Mapping[str, Sequence[Part]]] = {
    "eof": (),
    "drop": (Drop(),),
    "reset": (Reset(),),
    "stall": (Hold(),),
    "junk": (sse("{not json"),),
    "error": (sse({"error": {"message": "The server had an error.", "type": "server_error"}}),),
}

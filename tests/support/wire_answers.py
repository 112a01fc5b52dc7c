"""What a model says, piece by piece, in each provider's wire format, and how it fails there.

The frames are those of the samples in tests/providers/wire, with a test's own words in them.
"""

import json
from collections.abc import Mapping
from typing import Final

from tests.support.provider_script import Answer, choice, completion_chunk, sse

WIRES: Final = ("openai", "anthropic", "openrouter", "ollama")
CUT_JSON: Final = '{"type": "content_block_delta", "choices": [{"ind'

_ANTHROPIC_KINDS: Final = {
    400: "invalid_request_error",
    401: "authentication_error",
    404: "not_found_error",
    429: "rate_limit_error",
    529: "overloaded_error",
}


def environ_of(wire: str, base_url: str) -> dict[str, str]:
    """The settings that lead a provider to a ProviderServer's `base_url`."""
    origin = base_url.removesuffix("/v1")
    match wire:
        case "ollama":
            return {"OLLAMA_HOST": origin}
        case "anthropic":
            return {"ANTHROPIC_BASE_URL": origin}
    return {f"{wire.upper()}_BASE_URL": base_url}


class Spoken:
    """One answer's frames. What each method gives follows what the ones before it gave."""

    def begin(self) -> list[bytes]:
        """What comes before the first token."""
        raise NotImplementedError

    def words(self, *words: str) -> list[bytes]:
        """Visible text, a frame for each word at least."""
        raise NotImplementedError

    def call(self, call_id: str, name: str, *pieces: str) -> list[bytes]:
        """A call of a tool, its arguments in these pieces; it is left open."""
        raise NotImplementedError

    def end(self, *, calls: bool = False, used: tuple[int, int] | None = (7, 3)) -> list[bytes]:
        """The finish reason, the input and output tokens, and the stream's own end."""
        raise NotImplementedError

    def bad_line(self) -> list[bytes]:
        """One line that is no JSON."""
        raise NotImplementedError

    def error(self) -> list[bytes]:
        """An error in mid-stream, as the provider tells it."""
        raise NotImplementedError


class _Completion(Spoken):
    """OpenAI's chunks, and those of servers with its API."""

    def __init__(self, wire: str, model: str) -> None:
        self._wire, self._model = wire, model
        self._calls = 0

    def begin(self) -> list[bytes]:
        waits = [b": OPENROUTER PROCESSING\n\n"] if self._wire == "openrouter" else []
        return [*waits, self._chunk({"role": "assistant", "content": ""})]

    def words(self, *words: str) -> list[bytes]:
        return [self._chunk({"role": "assistant", "content": word}) for word in words]

    def call(self, call_id: str, name: str, *pieces: str) -> list[bytes]:
        index, self._calls = self._calls, self._calls + 1
        function: dict[str, object] = {"name": name, "arguments": ""}
        opened = {"index": index, "id": call_id, "type": "function", "function": function}
        rest = [{"index": index, "function": {"arguments": piece}} for piece in pieces]
        return [self._chunk({"tool_calls": [piece]}) for piece in (opened, *rest)]

    def end(self, *, calls: bool = False, used: tuple[int, int] | None = (7, 3)) -> list[bytes]:
        frames = [self._chunk({}, "tool_calls" if calls else "stop")]
        if used is not None:
            told = {"prompt_tokens": used[0], "completion_tokens": used[1]}
            usage = {**told, "total_tokens": sum(used)}
            frames.append(sse(completion_chunk(self._model, usage=usage)))
        return [*frames, sse("[DONE]")]

    def bad_line(self) -> list[bytes]:
        return [sse(CUT_JSON)]

    def error(self) -> list[bytes]:
        if self._wire == "openrouter":
            error = {"code": 502, "message": "Provider disconnected unexpectedly"}
            ended = choice({"role": "assistant", "content": ""}, "error")
            return [sse(completion_chunk(self._model, choices=ended, error=error))]
        return [sse({"error": {"message": "The server had an error.", "type": "server_error"}})]

    def _chunk(self, delta: Mapping[str, object], finish: str | None = None) -> bytes:
        return sse(completion_chunk(self._model, choices=choice(delta, finish)))


class _Message(Spoken):
    """Anthropic's events."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._index = -1
        self._open = ""  # the kind of the block that is open

    def begin(self) -> list[bytes]:
        usage = {"input_tokens": 7, "cache_read_input_tokens": 0, "output_tokens": 1}
        message = {"model": self._model, "id": "msg_1", "role": "assistant", "content": []}
        started = _event("message_start", message={**message, "usage": usage})
        return [started, _event("ping")]

    def words(self, *words: str) -> list[bytes]:
        opened = [] if self._open == "text" else self._start("text", text="")
        return [*opened, *(self._delta("text_delta", text=word) for word in words)]

    def call(self, call_id: str, name: str, *pieces: str) -> list[bytes]:
        opened = self._start("tool_use", id=call_id, name=name, input={})
        return [
            *opened,
            *(self._delta("input_json_delta", partial_json=piece) for piece in ("", *pieces)),
        ]

    def end(self, *, calls: bool = False, used: tuple[int, int] | None = (7, 3)) -> list[bytes]:
        why = {"stop_reason": "tool_use" if calls else "end_turn", "stop_sequence": None}
        tokens = used or (7, 3)
        usage = {"input_tokens": tokens[0], "output_tokens": tokens[1]}
        ended = _event("message_delta", delta=why, usage=usage)
        return [*self._stop(), ended, _event("message_stop")]

    def bad_line(self) -> list[bytes]:
        return [f"event: content_block_delta\ndata: {CUT_JSON}\n\n".encode()]

    def error(self) -> list[bytes]:
        error = {"details": None, "type": "overloaded_error", "message": "Overloaded"}
        return [_event("error", error=error, request_id="req_1")]

    def _start(self, kind: str, **block: object) -> list[bytes]:
        stopped, self._open = self._stop(), kind
        self._index += 1
        block = {"type": kind, **block}
        return [*stopped, _event("content_block_start", index=self._index, content_block=block)]

    def _delta(self, kind: str, **members: object) -> bytes:
        delta = {"type": kind, **members}
        return _event("content_block_delta", index=self._index, delta=delta)

    def _stop(self) -> list[bytes]:
        return [_event("content_block_stop", index=self._index)] if self._open else []


def spoken(wire: str, model: str) -> Spoken:
    """A new answer in a provider's format."""
    return _Message(model) if wire == "anthropic" else _Completion(wire, model)


def whole(wire: str, model: str, *words: str, used: tuple[int, int] | None = (7, 3)) -> list[bytes]:
    """An answer of these words from its beginning to its end."""
    said = spoken(wire, model)
    return [*said.begin(), *said.words(*words), *said.end(used=used)]


def refusal(
    wire: str,
    status: int,
    message: str,
    *,
    code: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """An error before the stream, in a provider's shape; `code` is OpenAI's and Ollama's own."""
    error: dict[str, object] = {"message": message}
    match wire:
        case "anthropic":
            kind = _ANTHROPIC_KINDS.get(status, "api_error")
            told: dict[str, object] = {"type": "error", "error": {"type": kind, **error}}
        case "openrouter":
            metadata = {"metadata": {"headers": dict(headers)}} if headers else {}
            told = {"error": {"code": status, **error, **metadata}}
        case _:
            told = {"error": {**error, "type": None, "param": None, "code": code}}
    body = json.dumps(told).encode()
    return Answer([body], status, headers or {}, "application/json")


def _event(kind: str, **members: object) -> bytes:
    data = json.dumps({"type": kind, **members}, ensure_ascii=False)
    return f"event: {kind}\ndata: {data}\n\n".encode()

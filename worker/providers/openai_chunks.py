"""Reads the chunks of a streamed chat completion, of OpenAI and of those that resemble it."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from rejoin.shared.events import FinishReason
from rejoin.worker.providers import error_objects
from rejoin.worker.providers.base import (
    CUT,
    Chunk,
    FinishChunk,
    ReasoningChunk,
    TextChunk,
    UsageChunk,
    WorkingChunk,
)
from rejoin.worker.providers.chunk_json import NoChunk, parse_object, unasked_tool
from rejoin.worker.providers.openai_parts import read_parts
from rejoin.worker.providers.openai_reasoning import ReasoningDetails
from rejoin.worker.providers.openai_tool_calls import ToolCalls
from rejoin.worker.providers.openai_usage import read_usage
from rejoin.worker.providers.stream_reader import StreamReader

_FINISH: Final[Mapping[str, FinishReason]] = {
    "stop": FinishReason.STOP,
    "length": FinishReason.LENGTH,
    "content_filter": FinishReason.CONTENT_FILTER,
    "max_tokens": FinishReason.LENGTH,
    "model_length": FinishReason.LENGTH,
    "refusal": FinishReason.CONTENT_FILTER,
    "safety": FinishReason.CONTENT_FILTER,
    "sensitive": FinishReason.CONTENT_FILTER,
}
# Ends that are none: OpenRouter, DeepSeek, vLLM and GLM give the reason of a break this way.
_BROKEN: Final = frozenset({"error", "abort", "insufficient_system_resource", "network_error"})
_TOOLS: Final = frozenset({"tool_calls", "function_call"})


class Completion(StreamReader):
    """One streamed answer, from the body's bytes to chunks.

    `finished`: it has had a finish reason. `ended`: it has had its `[DONE]`, and no more is read.
    `calls` gathers the tools that the model calls; None where it was offered none. `fits`: the
    answer is to fit a JSON schema, which a refusal is no attempt at.
    """

    no_chunk = "a part of the stream is no chat completion chunk"
    no_end = "the stream ended without a finish reason"

    def __init__(
        self, secrets: Sequence[str] = (), calls: ToolCalls | None = None, *, fits: bool = False
    ) -> None:
        super().__init__()
        self._fits = fits
        self._refused = False
        self._calls = calls
        self._called = False
        self._details = ReasoningDetails()
        self._secrets = secrets
        self._usage: UsageChunk | None = None

    def _read(self, events: Iterable[bytes]) -> Iterator[Chunk]:
        for payload in events:
            if self.ended:
                return
            if payload.startswith(b"[DONE]"):
                self.ended = True
            elif payload:
                yield from self._read_object(parse_object(payload))

    def _read_object(self, value: Mapping[str, object]) -> list[Chunk]:
        if error := value.get("error"):
            raise error_objects.from_body(error, self._secrets)
        chunks: list[Chunk] = []
        choices = value.get("choices")
        if choices:
            if not isinstance(choices, list) or not isinstance(choices[0], dict):
                raise NoChunk
            self._read_choice(choices[0], chunks)
        elif value.get("object") == "error":  # vLLM, within its stream
            raise error_objects.from_body(value, self._secrets)
        if usage := value.get("usage"):
            self._read_usage(usage, chunks)
        return chunks

    def _read_choice(self, choice: Mapping[str, object], chunks: list[Chunk]) -> None:
        delta = choice.get("delta")
        if isinstance(delta, dict):
            # Some send the same thought under two names: the first one that is there counts.
            thought = delta.get("reasoning_content") or delta.get("reasoning")
            if details := delta.get("reasoning_details"):
                thought = (self._details.feed(details), thought)[bool(thought)]
            if isinstance(thought, str) and thought:
                chunks.append(ReasoningChunk(thought))
            # A refusal is what the model answers; how it ended is the finish reason's to say, which
            # is "stop" for one in place of an answer that was to fit a schema.
            self._refused = self._refused or bool(delta.get("refusal"))
            for said in (delta.get("content"), delta.get("refusal")):
                if said:
                    chunks += [TextChunk(said)] if isinstance(said, str) else read_parts(said)
            if (called := delta.get("tool_calls")) or delta.get("function_call"):
                before = self._calls.chars if self._calls else 0
                self._call(called)
                chars = self._calls.chars - before if self._calls else 0
                chunks.append(WorkingChunk(chars))
        reason = choice.get("finish_reason")
        if reason and isinstance(reason, str) and not self.finished:
            chunks += self._finish(reason, choice.get("error"))
            self.finished = True

    def _call(self, pieces: object) -> None:
        if self._calls is None or not pieces:  # function_call is of an API that we never speak
            raise unasked_tool()
        if self.finished:
            raise error_objects.protocol("the model called a tool after its finish reason")
        self._calls.feed(pieces)
        self._called = True

    def _finish(self, reason: str, error: object) -> list[Chunk]:
        word = reason.lower()
        if word in _TOOLS and self._calls is None:
            raise unasked_tool()
        if word in _BROKEN:
            raise error_objects.from_body(error or f"it ended with {reason}", self._secrets)
        # An unknown word is an end too (eos, end_turn, …): the model stopped by itself.
        known = _FINISH.get(word, FinishReason.STOP)
        if self._called and known is FinishReason.STOP:
            known = FinishReason.TOOL_CALLS  # a few say "stop" all the same
        elif self._refused and self._fits and known is FinishReason.STOP:
            known = FinishReason.CONTENT_FILTER
        calls = self._calls.end(cut=known in CUT) if self._calls is not None else []
        extra = {} if reason == known else {"finish_reason": reason[:100]}
        return [*self._details.end(), *calls, FinishChunk(known, extra)]

    def _read_usage(self, usage: object, chunks: list[Chunk]) -> None:
        used = read_usage(usage)
        if used is not None and used != self._usage:  # a few repeat it in every chunk
            self._usage = used
            chunks.append(used)

"""Reads the chunks of a streamed chat completion, of OpenAI and of those that resemble it."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Final

from rejoin.shared.events import FinishReason
from rejoin.worker.providers import error_objects
from rejoin.worker.providers.base import (
    Chunk,
    FinishChunk,
    ReasoningChunk,
    TextChunk,
    UsageChunk,
)
from rejoin.worker.providers.chunk_json import NoChunk, count, parse_object, unasked_tool
from rejoin.worker.providers.sse import EventStream, NotAnEventStream

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


class Completion:
    """One streamed answer, from the body's bytes to chunks.

    `finished`: it has had a finish reason. `ended`: it has had its `[DONE]`, and no more is read.
    """

    def __init__(self, secrets: Sequence[str] = ()) -> None:
        self.finished = False
        self.ended = False
        self._secrets = secrets
        self._events = EventStream()
        self._usage: UsageChunk | None = None

    def feed(self, received: bytes) -> Iterator[Chunk]:
        """Yield the chunks that these bytes complete; they may be cut anywhere.

        Half a surrogate pair is passed on as it is. Bytes that are no UTF-8 become U+FFFD, as
        they do in every event stream (WHATWG HTML, 9.2.6).

        Raises:
            ProviderError: what an error object says, or `provider_protocol` for what is neither
                an error nor a chunk.
        """
        try:
            yield from self._read(self._events.feed(received))
        except NotAnEventStream as error:
            raise error_objects.protocol(str(error)) from None
        except NoChunk:
            raise error_objects.protocol(
                "a part of the stream is no chat completion chunk"
            ) from None

    def end(self) -> Iterator[Chunk]:
        """Yield what the body's end completes.

        Raises:
            ProviderError: `provider_protocol` where the answer has no finish reason.
        """
        try:
            yield from self._read(self._events.end())
        except NoChunk:
            pass  # cut off in mid-event
        except NotAnEventStream as error:
            raise error_objects.protocol(str(error)) from None
        if not self.finished:
            raise error_objects.protocol("the stream ended without a finish reason")

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
            if delta.get("tool_calls") or delta.get("function_call"):
                raise unasked_tool()
            # Some send the same thought under both names: the first one that is there counts.
            thought = delta.get("reasoning_content") or delta.get("reasoning")
            if isinstance(thought, str) and thought:
                chunks.append(ReasoningChunk(thought))
            # A refusal is what the model answers; how it ended is the finish reason's to say.
            for text in (delta.get("content"), delta.get("refusal")):
                if text:
                    if not isinstance(text, str):
                        raise NoChunk
                    chunks.append(TextChunk(text))
        reason = choice.get("finish_reason")
        if reason and isinstance(reason, str) and not self.finished:
            chunks.append(self._finish(reason, choice.get("error")))
            self.finished = True

    def _finish(self, reason: str, error: object) -> FinishChunk:
        word = reason.lower()
        if word in _TOOLS:
            raise unasked_tool()
        if word in _BROKEN:
            raise error_objects.from_body(error or f"it ended with {reason}", self._secrets)
        # An unknown word is an end too (eos, end_turn, …): the model stopped by itself.
        known = _FINISH.get(word, FinishReason.STOP)
        return FinishChunk(known, {} if reason == known else {"finish_reason": reason[:100]})

    def _read_usage(self, usage: object, chunks: list[Chunk]) -> None:
        if not isinstance(usage, dict):
            return
        cached = _detail(usage, "prompt_tokens_details", "cached_tokens")
        used = UsageChunk(
            input_tokens=count(usage.get("prompt_tokens")),
            output_tokens=count(usage.get("completion_tokens")),
            reasoning_tokens=_detail(usage, "completion_tokens_details", "reasoning_tokens"),
            cached_tokens=cached or count(usage.get("prompt_cache_hit_tokens")),  # DeepSeek
            cost_usd=_money(usage.get("cost")),  # OpenRouter
        )
        if used != self._usage:  # a few repeat it in every chunk
            self._usage = used
            chunks.append(used)


def _detail(usage: Mapping[str, object], group: str, member: str) -> int:
    details = usage.get(group)
    return count(details.get(member)) if isinstance(details, dict) else 0


def _money(value: object) -> Decimal | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    # By its text: 0.00014 means that, not the float next to it.
    return Decimal(str(value)) if math.isfinite(value) and value >= 0 else None

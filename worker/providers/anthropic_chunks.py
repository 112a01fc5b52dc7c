"""Reads the events of a streamed message of Anthropic's Messages API."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from rejoin.shared.events import FinishReason
from rejoin.worker.providers import error_objects
from rejoin.worker.providers.anthropic_blocks import Block, Offered
from rejoin.worker.providers.anthropic_turns import AFTER_CHARS
from rejoin.worker.providers.base import CUT, Chunk, FinishChunk, ThinkingChunk, UsageChunk
from rejoin.worker.providers.chunk_json import NoChunk, count, parse_object
from rejoin.worker.providers.stream_reader import StreamReader

_FINISH: Final[Mapping[str, FinishReason]] = {
    "end_turn": FinishReason.STOP,
    "max_tokens": FinishReason.LENGTH,
    "tool_use": FinishReason.TOOL_CALLS,
    "refusal": FinishReason.CONTENT_FILTER,
    "stop_sequence": FinishReason.STOP,
    "model_context_window_exceeded": FinishReason.LENGTH,
}
_PLAIN: Final = frozenset({"end_turn", "max_tokens", "tool_use", "refusal"})
_PAUSED: Final = "pause_turn"

_READ: Final = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
_COUNTS: Final = (
    *_READ,
    "output_tokens",
    "thinking_tokens",  # within output_tokens_details
)


_MOST_BLOCKS: Final = 10_000
_MOST_SILENT_BYTES: Final = 64 * 1024 * 1024


class MessageStream(StreamReader):
    """One call's answer, from the body's bytes to chunks.

    `finished` and `ended`: it has had its `message_stop`, and no more is read. `paused`: it then
    is to be sent back as `content`, for the model to go on. `earlier` is what the calls before
    it in the same turn used, and `earlier_chars` how long their text is.
    """

    no_chunk = "a part of the stream is no message event"
    no_end = "the stream ended without its message_stop"

    def __init__(
        self,
        offered: Offered,
        secrets: Sequence[str] = (),
        earlier: UsageChunk | None = None,
        earlier_chars: int = 0,
    ) -> None:
        super().__init__()
        self._earlier_chars = earlier_chars
        self.usage = earlier or UsageChunk()
        self._earlier = self.usage
        self._offered = offered
        self._secrets = secrets
        self._open: dict[object, Block] = {}
        self._blocks: list[Block] = []
        # A call without arguments, until what comes next says that they were not cut off.
        self._held: Block | None = None
        self._counts: dict[str, int] = {}
        self._stop_reason = ""
        self._silent_bytes = 0

    @property
    def paused(self) -> bool:
        """Whether the API stopped in mid-turn and wants to be called again."""
        return self._stop_reason == _PAUSED

    @property
    def content(self) -> list[dict[str, object]]:
        """The whole content so far, as the API takes it back."""
        whole = (block.whole() for block in self._blocks)
        return [block for block in whole if block.get("text") != ""]  # which it would refuse

    @property
    def text_chars(self) -> int:
        """How long the turn's text is so far."""
        return self._earlier_chars + sum(block.text_chars for block in self._blocks)

    def _read(self, events: Iterable[bytes]) -> Iterator[Chunk]:
        for payload in events:
            if self.ended:
                return
            if not payload:
                continue
            chunks = self._read_object(parse_object(payload))
            if not chunks:
                self._bound(len(payload))
            yield from chunks

    def _bound(self, size: int) -> None:
        """Bound what says nothing by itself, much of which is kept; the rest has bounds."""
        self._silent_bytes += size
        if self._silent_bytes > _MOST_SILENT_BYTES:
            raise error_objects.protocol("an answer without an end that says nothing")

    def _read_object(self, event: Mapping[str, object]) -> Sequence[Chunk]:
        match event.get("type"):
            case "content_block_delta":
                return self._block(event).feed(_member(event, "delta"))
            case "content_block_start":
                return self._begin(event)
            case "content_block_stop":
                return self._close(event)
            case "message_start":
                # All of the input already: a call that breaks off has used that much, exactly.
                self._count(_member(event, "message").get("usage"))
                return self._more_used()
            case "message_delta":
                return self._read_delta(event)
            case "message_stop":
                return self._stop()
            case "error":
                raise error_objects.from_body(event.get("error"), self._secrets)
            case None:
                if error := event.get("error"):  # of a gateway in between, in its own form
                    raise error_objects.from_body(error, self._secrets)
                raise NoChunk
        return ()  # a ping, or an event of a later version of the API

    def _begin(self, event: Mapping[str, object]) -> list[Chunk]:
        index = event.get("index")
        if isinstance(index, list | dict):
            raise NoChunk
        if len(self._blocks) >= _MOST_BLOCKS:
            raise error_objects.protocol(f"an answer of more than {_MOST_BLOCKS} blocks")
        block = Block(_member(event, "content_block"), self._offered)
        self._open[index] = block
        self._blocks.append(block)
        return [*self._release(), *block.begin()]

    def _block(self, event: Mapping[str, object]) -> Block:
        try:
            return self._open[event.get("index")]
        except (KeyError, TypeError):
            raise NoChunk from None

    def _close(self, event: Mapping[str, object]) -> list[Chunk]:
        block = self._block(event)
        del self._open[event.get("index")]
        before = self._release()
        if block.is_bare_call:
            self._held = block
            return before
        return [*before, *map(self._placed, block.end())]

    def _placed(self, chunk: Chunk) -> Chunk:
        """Note where a thought stood that followed text: it has to go back to the same place."""
        if not isinstance(chunk, ThinkingChunk) or not (chars := self.text_chars):
            return chunk
        return ThinkingChunk({**chunk.block, AFTER_CHARS: chars})

    def _read_delta(self, event: Mapping[str, object]) -> list[Chunk]:
        reason = _member(event, "delta").get("stop_reason")
        calls: list[Chunk] = []
        if isinstance(reason, str):
            self._stop_reason = reason
            calls = self._release()
        usage = event.get("usage")
        # Before the end `output_tokens` says next to nothing: an answer that breaks off has to be
        # counted from its text.
        if not self._count(usage) or not self._stop_reason:
            return calls
        return [*calls, *(self._more_used() if self.paused else [self.usage])]

    def _more_used(self) -> list[Chunk]:
        return [] if self.usage == self._earlier else [self.usage]

    def _stop(self) -> list[Chunk]:
        if not self._stop_reason:
            raise error_objects.protocol("the message ended without a stop reason")
        chunks = self._release()
        chunks += [chunk for block in self._open.values() for chunk in block.end(cut=self._cut)]
        self.finished = self.ended = True
        return chunks if self.paused else [*chunks, self._finish()]

    def _release(self) -> list[Chunk]:
        held, self._held = self._held, None
        return [] if held is None else list(held.end(cut=self._cut))

    @property
    def _cut(self) -> bool:
        return _FINISH.get(self._stop_reason) in CUT

    def _finish(self) -> FinishChunk:
        # An unknown word is an end too: the model stopped by itself.
        known = _FINISH.get(self._stop_reason, FinishReason.STOP)
        if known is FinishReason.TOOL_CALLS and not any(block.is_call for block in self._blocks):
            known = FinishReason.STOP  # it called the tool that stands for the answer's format
        said = {} if self._stop_reason in _PLAIN else {"finish_reason": self._stop_reason[:100]}
        return FinishChunk(known, said)

    def _count(self, usage: object) -> bool:
        """Note what it used so far; the numbers are cumulative, and a null says nothing.

        Nor does a 0 of the input: gateways send it at the end of what began with the number.
        """
        if not isinstance(usage, dict):
            return False
        details = usage.get("output_tokens_details")
        for said in (usage, details if isinstance(details, dict) else {}):
            for name in _COUNTS:
                if said.get(name) is None or (said[name] == 0 and name in _READ):
                    continue
                self._counts[name] = count(said[name])
        plain, read, written, output, thought = (self._counts.get(name, 0) for name in _COUNTS)
        before = self._earlier
        self.usage = UsageChunk(
            input_tokens=before.input_tokens + plain + read + written,
            output_tokens=before.output_tokens + output,
            reasoning_tokens=before.reasoning_tokens + thought,
            cached_tokens=before.cached_tokens + read,
            cache_write_tokens=before.cache_write_tokens + written,
        )
        return True


def _member(event: Mapping[str, object], name: str) -> Mapping[str, object]:
    value = event.get(name)
    if not isinstance(value, dict):
        raise NoChunk
    return value

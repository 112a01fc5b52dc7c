"""One model call: its chunks become events, its deadlines are kept."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from rejoin.shared.errors import ProviderError
from rejoin.shared.events import FailureCode, FinishReason, Reasoning, Text, Usage
from rejoin.worker.deadlines import Deadlines
from rejoin.worker.providers.base import (
    Chunk,
    FinishChunk,
    ModelRequest,
    Provider,
    ReasoningChunk,
    TextChunk,
    ThinkingChunk,
    UsageChunk,
)
from rejoin.worker.stopping import Stop, Stoppable, Stopped
from rejoin.worker.usage import Priced, broken_usage, estimated_usage, usage_event
from rejoin.worker.whole_text import WholeText
from rejoin.worker.writer import Writer


@dataclass(slots=True)
class Step:
    """A model call under way, or what it came to; also what is left of one that was stopped.

    `model` is its whole name, `provider/name`; `texts` are the pieces of its text, where they are
    asked for (not None); `thinking` are its thinking blocks.
    """

    request: ModelRequest
    model: str
    texts: list[str] | None = None
    called_at: datetime | None = None
    text_chars: int = 0
    reasoning_chars: int = 0
    finish_reason: FinishReason | None = None
    reported: UsageChunk | None = None
    thinking: list[Mapping[str, object]] = field(default_factory=list)

    @property
    def usage(self) -> Usage:
        """What it used: as reported, else estimated from what was seen of it."""
        if self.called_at is None:
            return Usage()
        call = Priced(self.model, self.called_at)
        seen = (self.text_chars, self.reasoning_chars)
        if self.reported is None:
            return estimated_usage(self.request, *seen, call)
        if self.finish_reason is None:
            return broken_usage(self.reported, self.request, *seen, call)
        return usage_event(self.reported, call)

    async def run(
        self, provider: Provider, writer: Writer, stoppable: Stoppable, deadlines: Deadlines
    ) -> FinishReason:
        """Call the model and write its events; return why it ended.

        Raises:
            Stopped: somebody, or a deadline, stopped it; the provider's connection is closed.
            ProviderError: the provider could not, or would not.
        """
        try:
            async with stoppable:
                with deadlines:
                    self.called_at = datetime.now(UTC)
                    async with provider.stream(self.request) as chunks:
                        await self._relay(chunks, writer, deadlines)
        except Stopped as stopped:
            if self.finish_reason is None or stopped.reason is not Stop.IDLE:
                raise
        if self.finish_reason is None:
            raise ProviderError(
                "the provider's answer broke off",
                code=FailureCode.PROVIDER_PROTOCOL,
                retryable=True,
            )
        return self.finish_reason

    async def _relay(
        self, chunks: AsyncIterator[Chunk], writer: Writer, deadlines: Deadlines
    ) -> None:
        text, reasoning = WholeText(), WholeText()
        try:
            async for chunk in chunks:
                # A first report of what was read may come long before the first token.
                if self.reported is not None or type(chunk) is not UsageChunk:
                    deadlines.heard()
                match chunk:
                    case TextChunk():
                        self._text(writer, text.feed(chunk.text))
                    case ReasoningChunk():
                        self._reasoning(writer, reasoning.feed(chunk.text))
                    case ThinkingChunk():
                        self.thinking.append(chunk.block)
                    case UsageChunk():
                        self.reported = chunk
                    case FinishChunk():
                        self.finish_reason = chunk.finish_reason
                        deadlines.finished()
                if writer.full and self.finish_reason is None:
                    raise Stopped(Stop.LOG_FULL)
                if writer.behind:
                    with deadlines.not_reading():
                        await writer.flush()
        finally:
            self._reasoning(writer, reasoning.end())
            self._text(writer, text.end())

    def _text(self, writer: Writer, text: str) -> None:
        if text:
            note = self._note()
            self.text_chars += len(text)
            if self.texts is not None:
                self.texts.append(text)
            writer.put(Text(text), note)

    def _reasoning(self, writer: Writer, text: str) -> None:
        if text:
            note = self._note()
            self.reasoning_chars += len(text)
            writer.put(Reasoning(text), note)

    def _note(self) -> bytes:
        """With its first piece: what it was shown, should its worker be lost."""
        if self.text_chars or self.reasoning_chars:
            return b""
        return f'{{"shown_chars":{self.request.chars}}}'.encode()

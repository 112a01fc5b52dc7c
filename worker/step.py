"""One model call: its chunks become events, its deadlines are kept.

A call of a tool becomes an event when the next one comes, so that the last one of the model call
is still here when that is over, and can say so.
"""

from collections.abc import AsyncIterator, Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from rejoin.shared import token_count
from rejoin.shared.errors import ProviderError
from rejoin.shared.events import FailureCode, FinishReason, Reasoning, Text, Usage
from rejoin.shared.rate_limits import RateLimits
from rejoin.shared.tool_calls import CallState
from rejoin.worker.called import CallNames, chars_of, event_of, told_of
from rejoin.worker.deadlines import Deadlines
from rejoin.worker.overlap import Seam
from rejoin.worker.progress import Called
from rejoin.worker.providers.base import (
    Chunk,
    FinishChunk,
    LimitsChunk,
    ModelRequest,
    Provider,
    ReasoningChunk,
    TextChunk,
    ThinkingChunk,
    ToolCallChunk,
    UsageChunk,
    WorkingChunk,
)
from rejoin.worker.stopping import Stop, Stoppable, Stopped
from rejoin.worker.takeover import called_note, private_note
from rejoin.worker.usage import Priced, broken_usage, estimated_usage, shown_tokens, usage_event
from rejoin.worker.whole_text import WholeText
from rejoin.worker.writer import Writer


@dataclass(slots=True)
class Step:
    """A model call under way, or what it came to; also what is left of one that was stopped.

    `model` is its whole name, `provider/name`, and `number` its step's. `texts` are the pieces of
    its text, where they are asked for (not None); `thinking` are its thinking blocks. `taken` are
    the ids that calls before it in the message have; `calls` are its own, those in the log, and
    `working_chars` what came of one whose arguments are not complete.
    `partial` is the text of the same step that calls before it gave and that stays, and `seam`
    joins this one's to it. `recovers`: should it break off, another goes on with its text.
    `hear` is told that it is answered, and what the headers say of the key's limits, if anything.
    """

    request: ModelRequest
    model: str
    number: int = 1
    texts: list[str] | None = None
    taken: Collection[str] = ()
    called_at: datetime | None = None
    text_chars: int = 0
    reasoning_chars: int = 0
    finish_reason: FinishReason | None = None
    reported: UsageChunk | None = None
    thinking: list[Mapping[str, object]] = field(default_factory=list)
    calls: list[CallState] = field(default_factory=list)
    call_chars: int = 0
    working_chars: int = 0
    partial: str = ""
    seam: Seam | None = None
    recovers: bool = False
    hear: Callable[[RateLimits | None], None] | None = None
    _held: CallState | None = None
    _names: CallNames | None = None
    _given: list[str] = field(default_factory=list)

    @property
    def gave(self) -> bool:
        """Whether anything of it is in the log."""
        return bool(self.text_chars or self.reasoning_chars or self.calls)

    @property
    def opened_call(self) -> bool:
        """Whether the model had begun to ask for a tool, be it with a part of its arguments."""
        return self.called or bool(self.working_chars)

    @property
    def got(self) -> bool:
        """Whether the provider gave anything of it, which it bills."""
        unseen = self.working_chars or (self.seam is not None and self.seam.dropped)
        return self.gave or self.called or bool(unseen)

    @property
    def called(self) -> bool:
        """Whether the model asked for tools."""
        return self._held is not None or bool(self.calls)

    @property
    def usage(self) -> Usage:
        """What it used: as reported, else estimated from what was seen of it."""
        if self.called_at is None:
            return Usage()
        call = Priced(self.model, self.called_at)
        dropped = 0 if self.seam is None else self.seam.dropped
        chars = self.text_chars + self.call_chars + self.working_chars + dropped
        seen, given = (chars, self.reasoning_chars), "".join(self._given)
        if self.reported is None:
            return estimated_usage(self.request, *seen, call, given)
        if self.finish_reason is None:
            return broken_usage(self.reported, self.request, *seen, call, given)
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
        if self._took_answer_for_thoughts:
            raise ProviderError(
                "the model took its own answer for thoughts",
                code=FailureCode.INVALID_REQUEST,
                retryable=False,
            )
        return self.finish_reason

    @property
    def _took_answer_for_thoughts(self) -> bool:
        """Whether a server's reasoning parser made thoughts of all that followed a prefix."""
        if self.seam is None or self.seam.repeats:
            return False
        return bool(self.reasoning_chars) and not (self.text_chars or self.called)

    async def _relay(
        self, chunks: AsyncIterator[Chunk], writer: Writer, deadlines: Deadlines
    ) -> None:
        text, reasoning = WholeText(), WholeText()
        try:
            async for chunk in chunks:
                if type(chunk) is LimitsChunk:
                    self._heard(chunk.limits)
                    continue
                # A first report of what was read may come long before the first token.
                if self.reported is not None or type(chunk) is not UsageChunk:
                    deadlines.heard()
                match chunk:
                    case TextChunk():
                        whole = text.feed(chunk.text)
                        self._text(writer, self.seam.feed(whole) if self.seam else whole)
                    case ReasoningChunk():
                        self._reasoning(writer, reasoning.feed(chunk.text))
                    case FinishChunk():
                        self.finish_reason = chunk.finish_reason
                        deadlines.finished()
                    case _:
                        self._gather(writer, chunk)
                if writer.full and self.finish_reason is None:
                    raise Stopped(Stop.LOG_FULL)
                if writer.behind:
                    with deadlines.not_reading():
                        await writer.flush()
        finally:
            self._reasoning(writer, reasoning.end())
            self._end_text(writer, text.end())

    def _gather(self, writer: Writer, chunk: Chunk) -> None:
        match chunk:
            case UsageChunk():
                self.reported = chunk
            case WorkingChunk():
                self.working_chars += chunk.chars
            case ThinkingChunk():
                self.thinking.append(chunk.block)
            case ToolCallChunk():
                if self.seam is not None:
                    self._text(writer, self.seam.end())
                self._call(writer, chunk)

    def _end_text(self, writer: Writer, half: str) -> None:
        """Write what waited: for another half of a character, or to be told from a repetition."""
        if self.finish_reason is None and self.recovers:
            return  # the other half is not lost: it comes with what follows, after the break
        if self.seam is not None:
            half = self.seam.feed(half) + (self.seam.end() if self.finish_reason else "")
        self._text(writer, half)

    def _text(self, writer: Writer, text: str) -> None:
        if text:
            note = b"" if self.text_chars else self._note()  # two calls less for all but the first
            self.sample(text)
            self.text_chars += len(text)
            if self.texts is not None:
                self.texts.append(text)
            writer.put(Text(text), note)

    def _reasoning(self, writer: Writer, text: str) -> None:
        if text:
            note = b"" if self.reasoning_chars else self._note()
            self.sample(text)
            self.reasoning_chars += len(text)
            writer.put(Reasoning(text), note)

    def end(self, writer: Writer, used: Usage) -> Called:
        """Write the last call of a tool, which says that the model call is over.

        `used` is what this call used, and what others of its attempt did that nothing tells of.
        """
        last = self._held
        if last is None or self.finish_reason is None:
            raise ValueError("the model asked for no tool, or is not done")
        self._held = None
        self.calls.append(last)
        text, thinking = self.partial + "".join(self.texts or ()), self.thinking
        called = Called(self.number, text, self.model, self.finish_reason, thinking, self.calls)
        writer.put(event_of(last), called_note(used, called, **told_of(last)))
        return called

    def _call(self, writer: Writer, chunk: ToolCallChunk) -> None:
        if self._names is None:
            self._names = CallNames(self.taken)
        held, self._held = self._held, self._names.take(chunk, self.number)
        self.call_chars += chars_of(self._held)
        self.working_chars = 0  # what was at work is complete
        if held is not None:
            note = private_note(told_of(held) | ({} if self.gave else self._shown()))
            self.calls.append(held)
            writer.put(event_of(held), note)

    def _note(self) -> bytes:
        """With its first piece: what it was shown, should its worker be lost."""
        if self.gave:
            return b""
        self._heard(None)
        return private_note(self._shown())

    def _heard(self, limits: RateLimits | None) -> None:
        if self.hear is not None:
            self.hear(limits)

    def _shown(self) -> dict[str, object]:
        shown = {"shown_chars": self.request.chars}
        if token_count.encoding_name(self.model) is not None:
            shown["shown_tokens"] = shown_tokens(self.model, self.request)
        return dict(shown)

    def sample(self, text: str) -> None:
        """Keep the first of what it gives, for its tokens to be counted."""
        if self.text_chars + self.reasoning_chars < token_count.SAMPLE_CHARS:
            self._given.append(text)

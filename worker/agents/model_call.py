"""A model call that an agent makes: asked again where it fails early, read piece by piece."""

import asyncio
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from math import inf
from typing import Final, NamedTuple

from rejoin.shared.errors import ProviderError, ToolError
from rejoin.shared.events import (
    FailureCode,
    Reasoning,
    Retry,
    Text,
    Usage,
    dumps,
)
from rejoin.shared.rate_limits import RateLimits
from rejoin.shared.settings import Settings
from rejoin.worker.admission import Admission, Admitted
from rejoin.worker.agents.model_answer import ModelAnswer, Piece
from rejoin.worker.backoff import pause_seconds
from rejoin.worker.bill import Bill
from rejoin.worker.pairing import mended
from rejoin.worker.providers.base import (
    Chunk,
    FinishChunk,
    LimitsChunk,
    ModelRequest,
    Provider,
    ReasoningChunk,
    TextChunk,
    ThinkingChunk,
    Tool,
    ToolCallChunk,
    UsageChunk,
    WorkingChunk,
)
from rejoin.worker.providers.registry import Providers
from rejoin.worker.quota_scopes import Later, tokens_of
from rejoin.worker.step import Step as Call
from rejoin.worker.tools.registry import Tools
from rejoin.worker.whole_text import WholeText

# It waits within its worker's slot, however long: the agent is under way.
_PATIENCE_SECONDS: Final = 1e6
_AFTER_FINISH_SECONDS: Final = 5.0  # a server that never closes must not cost the idle deadline


_BEFORE_THE_FIRST: Final = (UsageChunk, LimitsChunk)


class Asker(NamedTuple):
    """Who asks for the calls, of the quotas that all workers share."""

    admission: Admission
    message_id: str
    caller: str


@dataclass(frozen=True, slots=True)
class Ways:
    """What the model calls of one run of an agent work with.

    `tell` puts an event into the log, and `shows` hears how many characters a call shows its model.
    """

    settings: Settings
    providers: Providers
    tools: Tools
    bill: Bill
    tell: Callable[[Retry], None]
    shows: Callable[[int], None]
    asker: Asker


class ModelCalls:
    """The model calls of one run of an agent; none begins once that is `over`."""

    def __init__(self, ways: Ways) -> None:
        self.over = False
        self._open = 0
        self._had_turn = False
        self._ways = ways

    def is_idle(self) -> bool:
        """Whether none is under way."""
        return not self._open

    @asynccontextmanager
    async def call(
        self, model: str, request: ModelRequest, tools: Sequence[str | Tool]
    ) -> AsyncIterator[ModelAnswer]:
        """Call `provider/name`; the call begins with the first piece that is read.

        Raises:
            ProviderError: there is no such provider, or it is not configured.
            ToolError: there is no tool of such a name.
            RuntimeError: the agent's run is over.
        """
        if self.over:
            raise RuntimeError("the agent's run is over")
        provider, name = self._ways.providers.find(model)
        offered = [self._offered(tool) for tool in tools]
        made = mended(replace(request, model=name, tools=offered))
        answer = ModelAnswer()
        reading = _Reading(self._ways, provider, Call(made, model), answer, self._had_turn)
        self._had_turn = True
        self._open += 1
        try:
            async with aclosing(reading.pieces()) as pieces:
                answer.read_by(pieces)
                yield answer
        finally:
            self._open -= 1

    def used(self, usage: Usage) -> None:
        """Add what the agent used without us."""
        self._ways.bill.add(usage)

    def _offered(self, tool: str | Tool) -> Tool:
        if isinstance(tool, Tool):
            return tool
        found = self._ways.tools.find(tool)
        if found is None:
            raise ToolError(f"there is no tool {tool}")
        return Tool(found.name, found.description, found.parameters)


class _Reading:
    """One answer under way, through all of its tries."""

    def __init__(
        self, ways: Ways, provider: Provider, call: Call, answer: ModelAnswer, had_turn: bool
    ) -> None:
        self._ways = ways
        self._provider = provider
        self._call = call
        self._answer = answer
        self._had_turn = had_turn  # one under way holds a worker meanwhile
        self._text, self._reasoning = WholeText(), WholeText()
        self._gave = False
        self._admitted: Admitted | None = None

    async def pieces(self) -> AsyncGenerator[Piece, None]:
        """Read the answer; a try that fails before it gave anything is followed by another."""
        failures = 0
        while True:
            try:
                async with aclosing(self._try()) as pieces:
                    async for piece in pieces:
                        yield piece
            except ProviderError as error:
                failures += 1
                if self._gave or not error.retryable or failures >= self._tries:
                    raise
                pause = pause_seconds(failures, error.retry_after_seconds)
                self._ways.tell(Retry(error.code, round(pause, 3)))
                await asyncio.sleep(pause)
            else:
                return

    @property
    def _tries(self) -> int:
        return self._ways.settings.provider_retries

    async def _try(self) -> AsyncGenerator[Piece, None]:
        self._call = call = Call(self._call.request, self._call.model)
        self._admitted = admitted = await self._admit()
        self._ways.shows(call.request.chars)
        call.called_at = datetime.now(UTC)
        refused = False
        try:
            async with AsyncExitStack() as stack, aclosing(self._chunks(stack)) as chunks:
                async for chunk in chunks:
                    if (piece := self._take(chunk)) is not None:
                        yield piece
            for last in self._left():
                yield last
        except ProviderError as error:
            refused = not (self._gave or call.working_chars) and call.reported is None
            await admitted.refused(error)
            raise
        finally:
            used = None if refused else call.usage
            if used is not None:
                self._ways.bill.add(used)
            await admitted.over(0 if used is None else used.tokens)

    async def _admit(self) -> Admitted:
        """Wait for the call's turn at its provider's key."""
        request, (admission, message_id, caller) = self._call.request, self._ways.asker
        place = f"{message_id}/{secrets.token_hex(4)}"
        try:
            admitted = await admission.ask(
                self._call.model,
                place=place,
                caller=caller,
                tokens=tokens_of(request.chars, request.max_tokens),
                patience_seconds=_PATIENCE_SECONDS,
                had_turn=self._had_turn,
            )
        except asyncio.CancelledError:
            await admission.abandon(self._call.model, place)
            raise
        if isinstance(admitted, Later):
            raise TypeError("a call that waits within its slot was told to wait elsewhere")
        self._had_turn = True
        return admitted

    async def _chunks(self, stack: AsyncExitStack) -> AsyncGenerator[Chunk, None]:
        """The provider's chunks, each within its deadline; the agent's own time does not count."""
        settings, loop = self._ways.settings, asyncio.get_running_loop()
        due, heard = loop.time() + settings.timeout_first_token, False
        try:
            async with asyncio.timeout_at(due):
                chunks = await stack.enter_async_context(self._provider.stream(self._call.request))
            while True:
                async with asyncio.timeout_at(due):
                    chunk = await anext(chunks, None)
                if chunk is None:
                    break
                # A first report of what was read may come long before the first token.
                heard = heard or type(chunk) not in _BEFORE_THE_FIRST
                yield chunk
                done = self._call.finish_reason is not None
                wait = min(settings.timeout_idle, _AFTER_FINISH_SECONDS if done else inf)
                due = loop.time() + wait if heard else due
        except TimeoutError as error:
            if self._call.finish_reason is None:
                said = (
                    "the provider fell silent" if heard else "the provider gave no answer in time"
                )
                raise ProviderError(
                    said, code=FailureCode.PROVIDER_TIMEOUT, retryable=True
                ) from error
        if self._call.finish_reason is None:
            raise ProviderError(
                "the provider's answer broke off",
                code=FailureCode.PROVIDER_PROTOCOL,
                retryable=True,
            )

    def _take(self, chunk: Chunk) -> Piece | None:
        call, answer = self._call, self._answer
        match chunk:
            case LimitsChunk():
                self._hear(chunk.limits)
            case TextChunk():
                self._begin()
                return self._said(self._text.feed(chunk.text))
            case ReasoningChunk():
                self._begin()
                return self._thought(self._reasoning.feed(chunk.text))
            case WorkingChunk():
                call.working_chars += chunk.chars
            case ThinkingChunk():
                answer.thinking.append(chunk.block)
            case ToolCallChunk():
                self._begin()
                call.call_chars += len(chunk.call.name) + len(dumps(dict(chunk.call.arguments)))
                call.working_chars = 0  # what was at work is complete
                answer.calls.append(chunk)
            case UsageChunk():
                call.reported = chunk
            case FinishChunk():
                call.finish_reason = answer.finish_reason = chunk.finish_reason
        return None

    def _begin(self) -> None:
        if not self._gave:
            self._gave = True
            self._hear(None)

    def _hear(self, limits: RateLimits | None) -> None:
        if self._admitted is not None:
            self._admitted.heard(limits)

    def _left(self) -> Iterator[Piece]:
        for piece in (
            self._thought(self._reasoning.end()),
            self._said(self._text.end()),
        ):
            if piece is not None:
                yield piece

    def _said(self, text: str) -> Text | None:
        self._call.sample(text)
        self._call.text_chars += len(text)
        self._answer.text += text
        return Text(text) if text else None

    def _thought(self, text: str) -> Reasoning | None:
        self._call.sample(text)
        self._call.reasoning_chars += len(text)
        self._answer.reasoning += text
        return Reasoning(text) if text else None

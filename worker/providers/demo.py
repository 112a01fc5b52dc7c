"""The demo provider: echo, which needs no key and sends the user's own words back."""

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from decimal import Decimal
from typing import Final

from rejoin.shared.catalogue import parse_demo_rate
from rejoin.shared.content import text_of
from rejoin.shared.errors import BadRequest, NotFound, ProviderError
from rejoin.shared.events import FailureCode, FinishReason
from rejoin.worker.providers.base import (
    Chunk,
    FinishChunk,
    ListedModel,
    ModelRequest,
    TextChunk,
    UsageChunk,
)

BUILT_IN: Final = """\
Hello! You sent no words, so here are some of mine. Rejoin keeps an answer alive while you are \
away: a worker writes each piece into a log, and your browser reads along. Close the lid, lose \
the network, reload the page: when you come back, it goes on where you were, with no word \
missing and none twice. Try it now. Reload this page while I am still talking, or press Stop \
whenever you have heard enough."""

# White space goes with the word before it; what leads the text, with the first word.
_WORDS: Final = re.compile(r"\s*\S+\s*|\s+")
_WORD: Final = re.compile(r"\S+")
_UNPACED: Final = 32  # chunks between two breaths where nothing makes us wait


class DemoProvider:
    """Answers from its own process. Holds nothing."""

    @asynccontextmanager
    async def stream(self, request: ModelRequest) -> AsyncIterator[AsyncIterator[Chunk]]:
        """Send the last user turn back, or the rest of it; see Provider.

        Raises:
            ProviderError: `invalid_request` for another model, or a wrong rate.
        """
        try:
            rate = parse_demo_rate(request.model)
        except (BadRequest, NotFound) as error:
            raise ProviderError(
                str(error), code=FailureCode.INVALID_REQUEST, retryable=False
            ) from error
        async with aclosing(_echo(request, rate)) as chunks:
            yield chunks

    def continues(self, model: str) -> bool:
        """Always."""
        return True

    async def models(self) -> list[ListedModel]:
        """List nothing: the catalogue has its one model."""
        return []

    async def aclose(self) -> None:
        """Close nothing: there are no connections."""


async def _echo(request: ModelRequest, rate: float) -> AsyncGenerator[Chunk, None]:
    text = _before_stop(_last_user_text(request), request.stop)
    text = text.removeprefix(_begun(request))
    finish, sent = FinishReason.STOP, 0
    clock = asyncio.get_running_loop().time
    started = clock()
    for word in _WORDS.finditer(text):
        if sent == request.max_tokens:
            finish = FinishReason.LENGTH
            break
        # By the start, not by the last word: a late one must not delay all that follow.
        wait = started + sent / rate - clock() if rate else 0.0
        if wait > 0:
            await asyncio.sleep(wait)
        elif sent % _UNPACED == 0:
            await asyncio.sleep(0)
        yield TextChunk(word[0])
        sent += 1
    asked = sum(1 for turn in request.turns for _ in _WORD.finditer(text_of(turn.content)))
    yield UsageChunk(input_tokens=asked, output_tokens=sent, cost_usd=Decimal(0))
    yield FinishChunk(finish)


def _last_user_text(request: ModelRequest) -> str:
    texts = [text_of(turn.content) for turn in request.turns if turn.role == "user"]
    return (texts[-1] if texts else "") or BUILT_IN


def _begun(request: ModelRequest) -> str:
    """What it has said already, where it is to go on with that."""
    last = request.turns[-1] if request.turns else None
    return text_of(last.content) if last is not None and last.role == "assistant" else ""


def _before_stop(text: str, stops: Sequence[str]) -> str:
    """Cut `text` before the first stop sequence in it."""
    return text[: min((text.find(stop) for stop in stops if stop and stop in text), default=None)]

"""demo/echo: words, pace, limits."""

import asyncio
import itertools
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoin.shared.errors import ProviderError
from rejoin.shared.events import FailureCode, FinishReason
from rejoin.worker.providers.base import (
    Chunk,
    FinishChunk,
    ModelRequest,
    TextChunk,
    Turn,
    UsageChunk,
)
from rejoin.worker.providers.demo import BUILT_IN, DemoProvider

STOP = FinishChunk(FinishReason.STOP)


def said(
    text: str, *, model: str = "echo?rate=0", max_tokens: int | None = None, stop: str = ""
) -> ModelRequest:
    return ModelRequest(
        model, [Turn("user", text)], max_tokens=max_tokens, stop=[stop] if stop else []
    )


async def echo(request: ModelRequest) -> list[Chunk]:
    async with DemoProvider().stream(request) as chunks:
        return [chunk async for chunk in chunks]


def texts(chunks: list[Chunk]) -> list[str]:
    return [chunk.text for chunk in chunks if isinstance(chunk, TextChunk)]


async def test_words_come_one_by_one_with_the_space_after_them() -> None:
    assert await echo(said(" \tHello  big\n\nworld ")) == [
        *map(TextChunk, [" \tHello  ", "big\n\n", "world "]),
        UsageChunk(3, 3, cost_usd=Decimal(0)),
        STOP,
    ]


@given(st.text())
async def test_the_chunks_join_to_the_text(text: str) -> None:
    words = texts(await echo(said(text)))
    assert "".join(words) == (text or BUILT_IN)
    assert all(words)
    assert len(words) == max(1, len((text or BUILT_IN).split()))


async def test_the_last_user_turn_is_sent_back() -> None:
    turns = [Turn("user", "first"), Turn("assistant", "an answer"), Turn("user", "last")]
    chunks = await echo(ModelRequest("echo?rate=0", turns))
    assert texts(chunks) == ["last"]
    assert UsageChunk(4, 1, cost_usd=Decimal(0)) in chunks


async def test_without_words_it_tells_of_itself() -> None:
    assert "".join(texts(await echo(said("")))) == BUILT_IN
    assert "".join(texts(await echo(ModelRequest("echo?rate=0", [])))) == BUILT_IN
    assert 60 <= len(BUILT_IN.split()) <= 100


@pytest.mark.parametrize(
    ("limit", "words", "finish"),
    [
        (1, ["a "], FinishReason.LENGTH),
        (2, ["a ", "b "], FinishReason.LENGTH),
        (3, ["a ", "b ", "c"], FinishReason.STOP),
        (4, ["a ", "b ", "c"], FinishReason.STOP),
    ],
)
async def test_max_tokens_counts_words(limit: int, words: list[str], finish: FinishReason) -> None:
    chunks = await echo(said("a b c", max_tokens=limit))
    assert texts(chunks) == words
    assert chunks[-2:] == [UsageChunk(3, len(words), cost_usd=Decimal(0)), FinishChunk(finish)]


async def test_a_stop_sequence_ends_the_text_before_it() -> None:
    chunks = await echo(said("one two END three END", stop="END"))
    assert texts(chunks) == ["one ", "two "]
    assert chunks[-1] == STOP
    assert texts(await echo(said("END", stop="END"))) == []


@pytest.mark.parametrize("model", ["echo?rate=-1", "echo?speed=9", "parrot"])
async def test_a_name_that_means_nothing_is_an_invalid_request(model: str) -> None:
    with pytest.raises(ProviderError) as caught:
        await echo(said("x", model=model))
    assert (caught.value.code, caught.value.retryable) == (FailureCode.INVALID_REQUEST, False)


class Clock:
    """A loop's time that moves only by what is slept, and by `late` more each time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, late: float = 0.0) -> None:
        self.now = 1000.0
        self._late = late
        monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: self.now)
        monkeypatch.setattr("rejoin.worker.providers.demo.asyncio.sleep", self._sleep)

    async def _sleep(self, seconds: float) -> None:
        if seconds:
            self.now += seconds + self._late

    async def times(self, request: ModelRequest) -> list[float]:
        """When each chunk of text came, from the start."""
        async with DemoProvider().stream(request) as chunks:
            seen = [(self.now, chunk) async for chunk in chunks]
        return [round(now - 1000.0, 6) for now, chunk in seen if isinstance(chunk, TextChunk)]


async def test_chunks_come_at_the_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    times = await Clock(monkeypatch).times(said("a b c d", model="echo?rate=50"))
    assert times == [0.0, 0.02, 0.04, 0.06]


async def test_the_rate_is_20_unless_given(monkeypatch: pytest.MonkeyPatch) -> None:
    assert await Clock(monkeypatch).times(said("a b c", model="echo")) == [0.0, 0.05, 0.1]


async def test_a_late_chunk_does_not_delay_those_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    times = await Clock(monkeypatch, late=0.003).times(said("a " * 100, model="echo?rate=100"))
    assert times[-1] == pytest.approx(0.993)


@pytest.mark.parametrize("rate", ["0", "999999"])
async def test_a_thousand_words_at_once_let_others_run(rate: str) -> None:
    turns = itertools.count()

    async def other() -> None:
        while True:
            next(turns)
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    await echo(said("word " * 1000, model=f"echo?rate={rate}"))
    task.cancel()
    await asyncio.wait([task])
    assert next(turns) >= 30


async def test_leaving_early_ends_it() -> None:
    async with DemoProvider().stream(said("a b c", model="echo?rate=0.1")) as chunks:
        assert await anext(chunks) == TextChunk("a ")
    with pytest.raises(StopAsyncIteration):
        await anext(chunks)

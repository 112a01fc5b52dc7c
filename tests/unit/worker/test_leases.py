"""Leases: when an expired one of another worker's is believed, and when it is an outage's."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from fakeredis import FakeAsyncRedis

from rejoin.shared.errors import LogUnavailable
from rejoin.worker import leases
from rejoin.worker.leases import Leases
from tests.support.messages import until_true

LEASE_SECONDS = 1.5
BEAT_SECONDS = LEASE_SECONDS / 3


@asynccontextmanager
async def beating(
    monkeypatch: pytest.MonkeyPatch, reply: Callable[[], Awaitable[None]]
) -> AsyncIterator[Leases]:
    """Leases that are renewed, each beat with `reply` for Redis' own."""

    async def show_life(*_: object, **__: object) -> None:
        await reply()

    monkeypatch.setattr(leases, "show_life", show_life)
    kept = Leases(FakeAsyncRedis(), "w", lease_seconds=LEASE_SECONDS, lost=lambda _: None)
    assert kept.may_take_over
    task = asyncio.create_task(kept.run())
    yield kept
    task.cancel()
    await asyncio.wait([task])


async def test_replies_in_time_leave_no_doubt(monkeypatch: pytest.MonkeyPatch) -> None:
    beats = 0

    async def at_once() -> None:
        nonlocal beats
        beats += 1

    async with beating(monkeypatch, at_once) as kept:
        await until_true(lambda: beats > 1)
        assert kept.may_take_over


async def test_late_replies_are_an_outage(monkeypatch: pytest.MonkeyPatch) -> None:
    async def late() -> None:
        await asyncio.sleep(BEAT_SECONDS * 1.2)

    async with beating(monkeypatch, late) as kept:
        await until_true(lambda: not kept.may_take_over)


async def test_an_error_is_an_outage(monkeypatch: pytest.MonkeyPatch) -> None:
    async def away() -> None:
        raise LogUnavailable("Redis is away")

    async with beating(monkeypatch, away) as kept:
        await until_true(lambda: not kept.may_take_over)


async def test_doubt_ends_a_lease_later() -> None:
    kept = Leases(FakeAsyncRedis(), "w", lease_seconds=LEASE_SECONDS, lost=lambda _: None)
    kept.doubt()
    assert not kept.may_take_over
    await until_true(lambda: kept.may_take_over)

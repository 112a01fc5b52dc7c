"""A worker in the test's own process, with a provider that plays a script."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, NamedTuple

from arq.connections import ArqRedis
from redis.asyncio import Redis

from rejoin.shared import jobs, keys, log, record
from rejoin.shared.connections import open_redis
from rejoin.shared.db.engine import Database
from rejoin.shared.frames import Frame
from rejoin.shared.quota_scope import WINDOW_SECONDS
from rejoin.shared.settings import Settings
from rejoin.shared.settings_file import SettingsFile
from rejoin.worker.agents.declared import Agent
from rejoin.worker.agents.registry import Agents
from rejoin.worker.appender import Appender
from rejoin.worker.arq_worker import LeasedWorker
from rejoin.worker.kit import Kit
from rejoin.worker.providers.base import Provider
from rejoin.worker.providers.registry import FACTORIES, Providers
from rejoin.worker.tools.base import Tool
from rejoin.worker.tools.registry import Tools
from tests.support.messages import post, until
from tests.support.scripted_provider import SILENCE, ScriptedProvider, texts

_DATA = TemporaryDirectory(prefix="rejoin-data-")  # one history for all: made once

SCRIPT: Final = "script/x"  # the model that a test's own provider answers


def kit_for(
    redis: Redis,
    provider: Provider | None = None,
    *,
    name: str = "worker-1",
    tools: Iterable[Tool] = (),
    agents: Iterable[Agent] = (),
    file: SettingsFile | None = None,
    quota_seconds: float = WINDOW_SECONDS,
    **settings: Any,
) -> Kit:
    """What a run works with; it neither drains nor asks again unless `settings` say so."""
    factories: dict[str, Callable[[], Provider]] = dict(FACTORIES)
    if provider is not None:
        factories["script"] = lambda: provider
    plain: dict[str, Any] = {
        "drain_seconds": 0,
        "provider_retries": 1,
        "data_dir": Path(_DATA.name),
    }
    chosen = Settings(**plain | settings)
    return Kit(
        chosen,
        redis,
        Appender(redis),
        Providers(factories),
        name,
        Database.of(chosen),
        tools=Tools(tools),
        agents=Agents(agents),
        file=file or SettingsFile(),
        quota_seconds=quota_seconds,
    )


class RunningWorker:
    """A worker under way."""

    def __init__(self, worker: LeasedWorker, main: asyncio.Task[None], kit: Kit) -> None:
        self.worker = worker
        self.kit = kit
        self.main = main
        self.dead = False

    async def stop(self) -> None:
        """Stop it in order and wait until it has ended; TimeoutError after 15 s."""
        self.worker.stop()
        async with asyncio.timeout(15):
            await self.main

    async def die(self) -> None:
        """End it as a kill does: nothing is handed over, nothing told to Redis."""
        self.dead = True
        for task in (*self.worker.job_tasks.values(), *self.worker.tasks.values(), self.main):
            task.cancel()
        await asyncio.gather(*self.worker.tasks.values(), self.main, return_exceptions=True)


@asynccontextmanager
async def worker_on(
    url: str, provider: Provider | None = None, *, name: str = "worker-1", **settings: Any
) -> AsyncIterator[RunningWorker]:
    """Run a worker for the block; it listens for cancels and wake tokens before the block runs."""
    redis, blocking = open_redis(url), open_redis(url, timeout_seconds=3, connections=2, retries=0)
    kit = kit_for(redis, provider, name=name, **settings)
    arq_redis = ArqRedis(
        redis.connection_pool,
        job_serializer=jobs.encode,
        job_deserializer=jobs.decode,
        default_queue_name="",
    )
    worker = LeasedWorker(kit, arq_redis, blocking, url)
    running = RunningWorker(worker, asyncio.create_task(worker.main()), kit)
    try:
        await until(lambda: _lives(redis, name))
        yield running
        if not running.dead:
            await running.stop()
    finally:
        if not running.main.done():
            await running.die()
        await kit.validation.aclose()
        await blocking.aclose()
        await kit.database.aclose()
        await redis.aclose()


class Halfway(NamedTuple):
    """A message whose provider has said "one", and says "two" once `gate` is set."""

    message_id: str
    provider: ScriptedProvider
    gate: asyncio.Event


@asynccontextmanager
async def halfway(url: str, redis: Redis, **settings: Any) -> AsyncIterator[Halfway]:
    """Run a worker for the block, whose one message is in the midst of its answer."""
    gate = asyncio.Event()
    provider = ScriptedProvider([*texts("one"), gate, *texts("two"), SILENCE])
    async with worker_on(url, provider, **settings):
        message_id = await post(redis, model=SCRIPT)
        await until_events(redis, message_id, 2)
        yield Halfway(message_id, provider, gate)


async def _lives(redis: Redis, name: str) -> bool:
    return bool(await redis.exists(keys.worker(name)))


async def until_ended(redis: Redis, message_id: str, *, within: float = 10) -> list[Frame]:
    """Wait for a message's end and for its job to be gone; its log."""

    async def ended() -> bool:
        found = await record.load(redis, message_id)
        gone = await redis.zscore(keys.OPEN, message_id) is None
        return found is not None and found.ended and gone

    await until(ended, within=within)
    return await log.read_all(redis, message_id)


async def until_events(redis: Redis, message_id: str, count: int) -> None:
    """Wait until a message's log has so many events."""

    async def enough() -> bool:
        return int(await redis.xlen(keys.log(message_id))) >= count

    await until(enough)

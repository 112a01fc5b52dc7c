"""Does the planned faults: one at a time to each process, many at a time to the whole."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

import redis as redis_py

from tests.chaos.cluster import UP_SECONDS, Cluster, Doors, times_up
from tests.chaos.plan import FaultPlan, Kind
from tests.chaos.tally import Tally
from tests.support.processes import Api, Process, Worker

API_EXIT_SECONDS: Final = 6.0  # the contract's five, and the machine's own
WORKER_EXIT_SECONDS: Final = 15.0
_LOOK_SECONDS: Final = 0.25
_FAULT_SECONDS: Final = 150.0  # waiting for its turn at a process included


class Faults:
    """Breaks a cluster by plan. A process that broke is mended before it is broken again."""

    def __init__(self, running: Cluster, doors: Doors, tally: Tally) -> None:
        self._redis = running.redis
        self._stack = running.stack
        self._doors = doors
        self._tally = tally
        self._redis_lock = asyncio.Lock()
        processes = (*running.stack.apis, *running.stack.workers)
        self._locks = {process: asyncio.Lock() for process in processes}

    async def run(self, plan: tuple[FaultPlan, ...]) -> None:
        """Do them all; return when the last one is over and everything runs."""
        began = asyncio.get_running_loop().time()
        async with asyncio.TaskGroup() as group:
            for fault in plan:
                group.create_task(self._do(began + fault.at, fault))

    async def watch(self) -> None:
        """Notice whoever ends by himself, until cancelled."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            for process, lock in self._locks.items():
                if not lock.locked() and not process.running:
                    async with self._broken(process):
                        pass  # started, and noted

    async def _do(self, at: float, fault: FaultPlan) -> None:
        await asyncio.sleep(at - asyncio.get_running_loop().time())
        worker = self._stack.workers[fault.target % len(self._stack.workers)]
        api = self._stack.apis[fault.target % len(self._stack.apis)]
        does: dict[Kind, Callable[[], Awaitable[None]]] = {
            Kind.WORKER_KILL: lambda: self._kill([worker], fault.seconds),
            Kind.WORKERS_KILL: lambda: self._kill(self._stack.workers, fault.seconds),
            Kind.WORKER_TERM: lambda: self._end(worker, WORKER_EXIT_SECONDS, fault.seconds),
            Kind.WORKER_PAUSE: lambda: self._pause(worker, fault.seconds),
            Kind.API_KILL: lambda: self._kill([api], fault.seconds),
            Kind.API_TERM: lambda: self._end(api, API_EXIT_SECONDS, fault.seconds),
            Kind.API_PAUSE: lambda: self._pause(api, fault.seconds),
            Kind.REDIS_KILL: lambda: self._end_redis(self._redis.kill, fault.seconds),
            Kind.REDIS_TERM: lambda: self._end_redis(self._redis.stop, fault.seconds),
            Kind.REDIS_PAUSE: lambda: self._pause_redis(fault.seconds),
            Kind.REDIS_FULL: lambda: self._fill_redis(fault.seconds),
            Kind.CLIENT_KILL: self._kill_clients,
            Kind.PROXY_CUT: self._cut,
        }
        try:
            async with asyncio.timeout(_FAULT_SECONDS):
                await does[fault.kind]()
        except AssertionError as error:
            self._tally.wrong(f"at {fault.kind}: {error}")
        except TimeoutError:
            self._tally.wrong(f"{fault.kind} was not over in {_FAULT_SECONDS} s")
        self._tally.faults[fault.kind] += 1

    @contextlib.asynccontextmanager
    async def _broken(self, *processes: Process) -> AsyncIterator[None]:
        async with contextlib.AsyncExitStack() as held:
            for process in processes:
                await held.enter_async_context(self._locks[process])
                if not process.running:
                    self._tally.wrong(f"{process.name} had ended:\n{process.said()[-3000:]}")
                    await self._start(process)
            yield

    async def _kill(self, processes: "list[Worker] | list[Api]", seconds: float) -> None:
        async with self._broken(*processes):
            for process in processes:
                process.kill()
            await asyncio.sleep(seconds)
            for process in processes:
                await self._start(process)

    async def _end(self, process: Process, within: float, seconds: float) -> None:
        async with self._broken(process):
            process.signal_stop()
            try:
                code = await asyncio.to_thread(process.wait, within)
                assert code == 0, f"{process.name} left with exit code {code}"
            finally:
                await asyncio.sleep(seconds)
                await self._start(process)

    async def _pause(self, process: Process, seconds: float) -> None:
        async with self._broken(process):
            began = time.time()
            process.pause()
            await asyncio.sleep(seconds)
            process.resume()
            if process in self._stack.workers:
                self._tally.pauses.append((began, time.time()))

    async def _start(self, process: Process) -> None:
        """Start it and wait until it hears signals, whether Redis is there or not."""
        before = times_up(process)
        process.launch()
        await asyncio.to_thread(
            process.until, lambda: times_up(process) > before, within=UP_SECONDS
        )

    async def _end_redis(self, end: Callable[[], None], seconds: float) -> None:
        async with self._away():
            await asyncio.to_thread(end)
            await asyncio.sleep(seconds)
            await asyncio.to_thread(self._redis.start)

    async def _pause_redis(self, seconds: float) -> None:
        async with self._away():
            self._redis.pause()
            await asyncio.sleep(seconds)
            self._redis.resume()

    async def _fill_redis(self, seconds: float) -> None:
        async with self._away():
            await self._command("CONFIG", "SET", "maxmemory", "1mb")
            await asyncio.sleep(seconds)
            await self._command("CONFIG", "SET", "maxmemory", "0")

    @contextlib.asynccontextmanager
    async def _away(self) -> AsyncIterator[None]:
        async with self._redis_lock:
            began = time.time()
            try:
                yield
            finally:
                self._tally.outages.append((began, time.time()))

    async def _kill_clients(self) -> None:
        async with self._redis_lock:
            await self._command("CLIENT", "KILL", "TYPE", "pubsub")
            await self._command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

    async def _command(self, *words: str) -> None:
        def send() -> None:
            with self._redis.client() as client:
                client.execute_command(*words)

        with contextlib.suppress(redis_py.ConnectionError):
            await asyncio.to_thread(send)

    async def _cut(self) -> None:
        for proxy in self._doors.proxies:
            await proxy.cut_all()

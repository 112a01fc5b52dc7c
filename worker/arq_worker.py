"""arq's Worker, leased and fenced: what starts a job, keeps it, and ends it.

arq 0.28's own start, run and end are replaced: it polls over every running job, marks a running
job without saying whose it is, and ends one without asking; its run costs two round trips' worth
of commands, and ours rule: REJOIN_MAX_ATTEMPTS and the deadlines. A contract test holds the parts
of it that are used here.
"""

import asyncio
import contextlib
import logging
import math
import secrets
import time
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from arq.connections import ArqRedis
from arq.worker import Worker, func
from redis.asyncio import Redis

from rejoin.shared import jobs, keys, queue
from rejoin.shared.connections import redis_or_away
from rejoin.shared.ending import end_message
from rejoin.shared.errors import LogUnavailable
from rejoin.shared.events import Failed, FailureCode
from rejoin.shared.worker_life import end_life
from rejoin.worker.control import Control
from rejoin.worker.kit import Kit, insist
from rejoin.worker.leases import Leases
from rejoin.worker.models import Lists
from rejoin.worker.publishing import Publishing
from rejoin.worker.reaper import Reaper
from rejoin.worker.retention import Retention
from rejoin.worker.run import Run
from rejoin.worker.save import Saver
from rejoin.worker.stopping import Stop
from rejoin.worker.wake import POLL_SECONDS, Wake

_CANCEL_AGAIN_SECONDS: Final = 0.5
_STOP_SECONDS: Final = 5.0  # for what runs to be handed over
_SAVE_SECONDS: Final = 3.0  # for what has ended to be saved; another worker saves the rest

_NO_JOB: Final = Failed(FailureCode.INTERNAL, "the message's job could not be run", retryable=True)

_log = logging.getLogger(__name__)


class _Leased(NamedTuple):
    """A job as it was stored, and when its lease was asked for, by time.monotonic()."""

    job: bytes
    asked_at: float


class LeasedWorker(Worker):
    """Runs messages under leases: at most REJOIN_MAX_JOBS, each until its end or its lease's."""

    def __init__(self, kit: Kit, arq_redis: ArqRedis, blocking: Redis, url: str) -> None:
        super().__init__(
            functions=[func(_never_called, name=jobs.FUNCTION)],
            queue_name=keys.QUEUE,
            redis_pool=arq_redis,
            max_jobs=kit.settings.max_jobs,
            handle_signals=False,
            job_serializer=jobs.encode,
            job_deserializer=jobs.decode,
        )
        self._kit = kit
        self._runs: dict[str, Run] = {}
        self._leased: dict[str, _Leased] = {}  # of `tasks`
        self._leases = Leases(
            kit.redis,
            kit.worker_id,
            lease_seconds=kit.settings.lease_seconds,
            lost=self._not_renewed,
        )
        self._wake = Wake(blocking)
        self._control = Control(kit.redis, url, cancel=self._cancelled, running=lambda: self._runs)
        self._freed = asyncio.Event()
        self._stopping = asyncio.Event()
        self._hurried = False
        self._handing_over = False
        self._leasing = False  # jobs are being taken: maybe such as this worker has
        self._maybe_lost = set[str]()

    async def main(self) -> None:
        """Run until `stop`: then hand over what runs, and return."""
        async with asyncio.TaskGroup() as group:
            keepers = [
                group.create_task(self._leases.run()),
                group.create_task(self._kit.appender.run()),
                group.create_task(self._control.run()),
                group.create_task(self._kit.admission.run()),
                group.create_task(Reaper(self._kit).run()),
                group.create_task(Retention(self._kit).run()),
                group.create_task(Lists(self._kit).run()),
                group.create_task(Publishing(self._kit).run()),
            ]
            saver = Saver(self._kit)
            saving = group.create_task(saver.run())
            picking = group.create_task(self._pick_jobs())
            await self._stopping.wait()
            await _cancel([picking])
            await self._drain()
            await self._hand_over()
            saver.stop()
            await asyncio.wait([saving], timeout=_SAVE_SECONDS)
            await _cancel([*keepers, saving])
        try:
            await end_life(self._kit.redis, self._kit.worker_id)
        except LogUnavailable:
            _log.debug("Redis is away; the sign of life ends by itself")

    def stop(self) -> None:
        """Take no more jobs, let those that run finish for a grace, hand over the rest, end `main`.

        Said twice it hands over at once.
        """
        if self._stopping.is_set():
            self._hurried = True
            self._freed.set()
        self._stopping.set()

    async def close(self) -> None:
        """Close the connections that arq knows of."""
        await self.pool.aclose(close_connection_pool=True)

    async def run_job(self, job_id: str, score: int) -> None:
        """Run the message of a leased job, or end its log where the job is none that we can run.

        In the place of arq's own: it counts every start and gives up after some, deploys too.
        """
        token, leased = self._leases.held.get(job_id, ""), self._leased[job_id]
        conversation_id = jobs.conversation_of(leased.job, job_id)
        if conversation_id is None:
            _log.error("message %s: its job is gone, or is none that runs it", job_id)
            await end_message(self._kit.ender, job_id, _NO_JOB, job_token=token)
            return
        asked_at = leased.asked_at if token else -math.inf
        run = Run(self._kit, job_id, token, leased_at=asked_at, conversation_id=conversation_id)
        self._runs[job_id] = run
        if self._handing_over:
            run.stop(Stop.HANDED_OVER)  # leased just before: nobody else tells it
        try:
            await run.run()
        finally:
            self._runs.pop(job_id, None)

    async def _pick_jobs(self) -> None:
        while not self._stopping.is_set():
            if self.job_counter < self.max_jobs:
                if not await self._wake.wait():
                    self._leases.doubt()
            else:
                await self._slot()
            try:
                await self._start_due_jobs()
            except LogUnavailable as error:
                _log.warning("%s; no new message starts", error)
                self._leases.doubt()
                await asyncio.sleep(POLL_SECONDS)

    async def _slot(self) -> None:
        self._freed.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(POLL_SECONDS):
                await self._freed.wait()

    async def _start_due_jobs(self) -> None:
        free = self.max_jobs - self.job_counter
        if free <= 0:
            return
        token, asked_at = secrets.token_hex(8), time.monotonic()
        self._leasing, taken = True, dict[str, bytes]()
        try:
            taken = await self._lease(token, free)
        finally:
            self._leasing = False
            for message_id in self._maybe_lost - taken.keys():
                self._lease_lost(message_id)
            self._maybe_lost.clear()
        for message_id, job in taken.items():
            if message_id in self.tasks:
                self._take_again(message_id, token)
                continue
            self._leases.held[message_id] = token
            self._leased[message_id] = _Leased(job, asked_at)
            self.job_counter += 1
            task = self.loop.create_task(self._run_leased(message_id))
            self.tasks[message_id] = task

    async def _lease(self, token: str, most: int) -> dict[str, bytes]:
        """Take due jobs; those taken as this worker stops are given back at once."""
        redis = self._kit.redis
        taking = self.loop.create_task(
            queue.lease(
                redis,
                token=token,
                lease_seconds=self._kit.settings.lease_seconds,
                most=most,
                take_over=self._leases.may_take_over,
            )
        )
        try:
            return await asyncio.shield(taking)
        except asyncio.CancelledError:
            # Cancelled before its reply it may be done all the same: a lease nobody would know of.
            with contextlib.suppress(LogUnavailable, TimeoutError):
                async with asyncio.timeout(_STOP_SECONDS):
                    for message_id in await taking:
                        await queue.release(redis, message_id, token)
            raise

    async def _run_leased(self, message_id: str) -> None:
        """Run a job, which must not take the worker with it when Redis is away."""
        try:
            await insist(message_id, lambda: self._run_job(message_id))
        except Exception:  # noqa: BLE001  one job must not end the worker
            # Its lease is kept no more, so the job comes back by itself.
            _log.exception("the job of %s could not be run", message_id)
        finally:
            self._leases.held.pop(message_id, None)
            del self._leased[message_id]
            self.tasks.pop(message_id, None)
            self.job_counter -= 1
            self._freed.set()

    async def _run_job(self, message_id: str) -> None:
        with redis_or_away():
            await self.run_job(message_id, 0)

    async def _drain(self) -> None:
        """Let what runs finish, for REJOIN_DRAIN_SECONDS at the most."""
        if self.tasks:
            _log.info("waiting for %d messages to finish", len(self.tasks))
        until = self.loop.time() + self._kit.settings.drain_seconds
        try:
            async with asyncio.timeout_at(until):
                while self.tasks and not self._hurried:
                    self._freed.clear()
                    await self._freed.wait()
        except TimeoutError:
            return

    async def _hand_over(self) -> None:
        self._handing_over = True
        for run in list(self._runs.values()):
            run.stop(Stop.HANDED_OVER)
        running = list(self.tasks.values())
        if running:
            _, late = await asyncio.wait(running, timeout=_STOP_SECONDS)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late, timeout=_STOP_SECONDS)

    def _take_again(self, message_id: str, token: str) -> None:
        """Let a run go on under a new lease: its own ended while it could not be renewed.

        If another worker had the job in between, the log refuses what this run appends.
        """
        run = self._runs.get(message_id)
        if run is None or run.over:
            self._lease_lost(message_id)  # the job comes back when this lease ends
        else:
            self._leases.held[message_id] = token
            run.leased_again(token)

    def _not_renewed(self, message_id: str) -> None:
        if self._leasing:
            self._maybe_lost.add(message_id)  # to this worker itself, as the reply will tell
        else:
            self._lease_lost(message_id)

    def _lease_lost(self, message_id: str) -> None:
        self._leases.held.pop(message_id, None)
        run = self._runs.get(message_id)
        if run is not None and not run.over:
            _log.warning("the lease of %s is lost", message_id)
            run.stop(Stop.LEASE_LOST)

    def _cancelled(self, message_id: str) -> None:
        run = self._runs.get(message_id)
        if run is not None:
            run.stop(Stop.CANCELLED)


async def _cancel(tasks: Sequence[asyncio.Task[None]]) -> None:
    """Cancel tasks until they have ended: Python 3.11's wait_for may swallow a cancellation."""
    left = set(tasks)
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=_CANCEL_AGAIN_SECONDS)


async def _never_called(ctx: dict[Any, Any], *args: object, **kwargs: object) -> None:
    """What arq would call: it takes no worker without a function."""

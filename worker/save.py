"""Hands messages to the database: when they were accepted, and when they have ended.

Each worker has a saver; they share the marks in Redis (shared/unsaved.py). A database that is away
is waited for here alone: no stream knows of it, and no log expires before it was saved.
"""

import asyncio
import logging
import time
from typing import Final, NamedTuple

from rejoin.shared import queue, stored, unsaved
from rejoin.shared.db import saving, schema
from rejoin.shared.db.rows import StoredMessage
from rejoin.shared.errors import (
    DatabaseRefused,
    DatabaseUnavailable,
    LogUnavailable,
    MessageMissing,
    SettingsError,
)
from rejoin.shared.fold import Message
from rejoin.shared.history import standing_rows_of
from rejoin.shared.unsaved import Lease
from rejoin.worker.backoff import pause_seconds
from rejoin.worker.kit import Kit

POLL_SECONDS: Final = 0.5
LEASE_SECONDS: Final = 12.0  # longer than a transaction may take; a second save is harmless

_AT_ONCE: Final = 50
_GROUP_CHARS: Final = 4_000_000  # of texts in one transaction, and in memory
_ACCEPT_SECONDS: Final = 1.0
_REFUSED_SECONDS: Final = 300.0

_log = logging.getLogger(__name__)


class _Read(NamedTuple):
    """A message that is to be saved."""

    lease: Lease
    rows: list[StoredMessage]

    @property
    def answer(self) -> StoredMessage:
        """The message itself; the rows before it are the turns of its request."""
        return self.rows[-1]

    @property
    def chars(self) -> int:
        """How much text it is."""
        return len(self.answer.text) + len(self.answer.reasoning)


class Saver:
    """Saves what is due. `run` does it; whoever starts it stops it, or cancels it."""

    def __init__(self, kit: Kit) -> None:
        self._redis = kit.redis
        self._database = kit.database
        self._open_seconds = kit.settings.open_ttl_seconds
        self._saved_seconds = kit.settings.log_ttl_seconds
        self._ready = False
        self._failures = 0
        self._renewed_at: float | None = None
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Save until `stop`, and then what is due at that time, if the database is there."""
        while True:
            pause = 0.0
            try:
                if not await self.save_due():
                    pause = POLL_SECONDS
            except (DatabaseUnavailable, LogUnavailable, SettingsError) as error:
                pause = self._failed()
                _log.warning("%s; messages are saved later", error)
            except Exception:  # noqa: BLE001  whatever it is, the streams go on
                pause = self._failed()
                _log.exception("messages could not be saved; they are tried again")
            if pause and self._stopping.is_set():
                return
            await self._sleep(pause)

    def stop(self) -> None:
        """Let `run` end when nothing more is due, or cannot be saved."""
        self._stopping.set()

    async def save_due(self) -> int:
        """Save some of what is due; return how many messages that were.

        Raises:
            DatabaseUnavailable: it is away; they are due again soon.
            SettingsError: the database is behind this version.
            LogUnavailable: Redis is away; what was taken is due again with its lease's end.
        """
        if not self._ready:
            self._ready = await self._prepare()
        if not self._ready:
            raise DatabaseUnavailable("the database is away")
        leases = await unsaved.take(self._redis, lease_seconds=LEASE_SECONDS, most=_AT_ONCE)
        try:
            await self._save(leases)
        except LogUnavailable:
            raise
        except Exception:
            seconds = pause_seconds(self._failures + 1, None)
            await unsaved.put_off(self._redis, leases, seconds=seconds)
            raise
        return len(leases)

    async def _prepare(self) -> bool:
        ready = False
        try:
            ready = await schema.prepare(self._database)
        finally:
            if not ready:
                await self._keep_logs()
        return ready

    async def _save(self, leases: list[Lease]) -> None:
        group: list[_Read] = []
        for lease in leases:
            read = await self._read(lease)
            if read is None:
                continue
            group.append(read)
            if sum(one.chars for one in group) > _GROUP_CHARS:
                await self._write(group)
                group = []
        if group:
            await self._write(group)

    async def _read(self, lease: Lease) -> _Read | None:
        """Read a message; None where there is none (any more), or not yet."""
        message_id = lease.message_id
        try:
            found = await stored.load(self._redis, message_id)
        except MessageMissing:
            if await queue.is_indexed(self._redis, message_id):
                await unsaved.put_off(self._redis, [lease], seconds=_ACCEPT_SECONDS)
            else:
                await unsaved.saved(self._redis, [lease])
            return None
        # What runs is in its log; the database has it when it has ended.
        ended = found.record.ended
        message = await stored.fold_beside(found.frames) if ended else Message()
        request = found.readable_request
        return _Read(lease, await standing_rows_of(self._redis, found.record, request, message))

    async def _write(self, group: list[_Read]) -> None:
        try:
            rows = [row for one in group for row in one.rows]
            left_out = await saving.save(self._database, rows)
            self._failures = 0  # not where nothing was due: all may be put off
        except DatabaseRefused as error:
            if len(group) > 1:
                for one in group:
                    await self._write([one])
                return
            (refused,) = group
            _log.error("message %s cannot be saved: %s", refused.lease.message_id, error)
            ids = [refused.lease.message_id]
            await unsaved.let_live(self._redis, ids, life_seconds=self._open_seconds)
            await unsaved.put_off(self._redis, [refused.lease], seconds=_REFUSED_SECONDS)
            return
        except DatabaseUnavailable:
            await self._keep_logs()
            raise
        # A log's life after its end begins here; the mark goes last, so that a crash in between
        # only saves it twice.
        ended = [one.lease.message_id for one in group if one.answer.ended]
        kept = [message_id for message_id in ended if message_id not in left_out]
        leases = [one.lease for one in group]
        await unsaved.saved_ended(self._redis, leases, kept, life_seconds=self._saved_seconds)
        # Of a conversation that was deleted while it ran: its log goes too.
        gone = [message_id for message_id in ended if message_id in left_out]
        await unsaved.remove_logs(self._redis, gone)

    async def _keep_logs(self) -> None:
        """Renew what is not saved while the database is away, four times in its life."""
        now = time.monotonic()
        if self._renewed_at is not None and now - self._renewed_at < self._open_seconds / 4:
            return
        async for message_ids in unsaved.marked(self._redis):
            await unsaved.let_live(self._redis, message_ids, life_seconds=self._open_seconds)
        self._renewed_at = now

    def _failed(self) -> float:
        self._failures += 1
        return pause_seconds(self._failures, None)

    async def _sleep(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return

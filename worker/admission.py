"""Admits the model calls of this process to the quota that all workers share (shared/quota.py).

A key that nothing is known to bound costs its calls nothing, but for the first one of a process:
while that is on its way to the headers of its answer, for a second at most, the others wait for
what these say. While Redis is away calls are made all the same.
"""

import asyncio
import contextlib
import logging
import os
import secrets
import time
from collections.abc import Mapping
from typing import Final

from redis.asyncio import Redis

from rejoin.shared import queue, quota
from rejoin.shared.errors import LogUnavailable, ProviderError
from rejoin.shared.events import FailureCode
from rejoin.shared.quota import Standing
from rejoin.shared.quota_scope import WINDOW_SECONDS
from rejoin.shared.rate_limits import RateLimits
from rejoin.shared.settings_file import Quota
from rejoin.worker.quota_scopes import Known, Later, Scopes, model_of

PATIENCE_SECONDS: Final = 2.0  # who waits for longer holds no worker

_BEAT_SECONDS: Final = 1.0  # after which a worker knows at the latest that a key is parked
_PROBE_SECONDS: Final = 1.0

_log = logging.getLogger(__name__)


class Admitted:
    """A call that may be made. Once it is over it says so, however it ended."""

    def __init__(
        self, admission: "Admission", known: Known | None, call: str, model: str = ""
    ) -> None:
        self._admission = admission
        self._known = known
        self._model = model
        self._call = call
        self._began = time.monotonic()
        self._told = False

    @property
    def counts(self) -> bool:
        """Whether what it used is asked for."""
        return self._known is not None and self._call in self._known.calls

    def heard(self, limits: RateLimits | None = None) -> None:
        """Take the answer's beginning, and what its headers say; the rest goes on beside."""
        known, told, self._told = self._known, self._told, True
        if known is not None and not told and (limits or known.ramps or not known.heard):
            self._admission.hear(known, self._call, self._model, limits)

    async def refused(self, error: ProviderError) -> bool:
        """Take a call's failure; return whether its key is parked now for all workers."""
        if self._known is None:
            return False
        return await self._admission.refuse(self._known, self._call, self._model, error)

    async def over(self, tokens: int | None = None, *, made: bool = True) -> None:
        """Give the slot back; `tokens` it used (None: nobody knows), or that it was never made."""
        if self._known is not None:
            took_seconds = time.monotonic() - self._began
            await self._admission.settle(self._known, self._call, tokens, made, took_seconds)


class Admission:
    """The process's side of the quotas. `run` keeps what it has; whoever starts it cancels it."""

    def __init__(
        self,
        redis: Redis,
        quotas: Mapping[str, Quota],
        *,
        lease_seconds: float,
        window_seconds: float = WINDOW_SECONDS,
        most_parked_seconds: float = quota.MOST_PARKED_SECONDS,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self._redis = redis
        self._slot_ms = round(lease_seconds * 1000)
        self._beat_seconds = min(_BEAT_SECONDS, lease_seconds / 3)
        self._scopes = Scopes(quotas, window_seconds, environ)
        self._most_parked_seconds = most_parked_seconds
        self._telling: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Keep the slots of calls under way, hear of parked keys, wake whose turn it is."""
        try:
            while True:
                await asyncio.sleep(self._beat_seconds)
                for known in self._scopes.in_use():
                    await self._keep(known)
        finally:
            for task in self._telling.values():
                task.cancel()

    async def ask(
        self,
        model: str,
        *,
        place: str,
        caller: str,
        tokens: int,
        patience_seconds: float = PATIENCE_SECONDS,
        had_turn: bool = False,
        goes_on: bool = False,
    ) -> Admitted | Later:
        """Admit a call of `provider/name`, after a short wait if need be; or say how long it is.

        `tokens` are kept for it. `place` is its own in the line: that of a message which is parked
        is its id, and it is woken when its turn comes; `had_turn`: it came before, for an earlier
        call, and those whose own is yet to come are after it. One that `goes_on`, as another model
        was refused, does not wait for its key's parking to end, unless this one was refused too.
        """
        known = self.known_of(model)
        if known is None:
            return Admitted(self, None, "")
        known.used_at = time.monotonic()
        call = secrets.token_hex(8)
        # One that goes on does not go by what was known before the refusal.
        if not known.bounded and (not goes_on if known.heard else await self._goes_first(known)):
            return Admitted(self, known, call, model)
        until = known.used_at + 2 * patience_seconds
        while True:
            patience_ms = round(patience_seconds * 1000) if time.monotonic() < until else 0
            try:
                asked, stands = await quota.admit(
                    self._redis,
                    known.scope,
                    place,
                    call,
                    caller=caller,
                    tokens=tokens,
                    slot_ms=self._slot_ms,
                    patience_ms=patience_ms,
                    had_turn=had_turn,
                    goes_on_with=model_of(model) if goes_on else "",
                )
            except LogUnavailable as error:
                _log.warning("%s; a call of %s is not counted", error, model)
                return Admitted(self, None, "")
            self._note(known, stands)
            if asked.admitted:
                if stands.bounded:
                    known.calls.add(call)
                return Admitted(self, known, call, model)
            seconds = asked.wait_ms / 1000
            if asked.wait_ms > patience_ms:
                return Later(known.scope, place, seconds, asked.due_ms)
            await self._wait(known, place, seconds)

    async def leave(self, later: Later) -> None:
        """Give a place in the line up."""
        with contextlib.suppress(LogUnavailable):  # it is passed over then, when it does not come
            await quota.leave(self._redis, later.scope.line, later.place)

    async def abandon(self, model: str, place: str) -> None:
        """Give up the place of a call that was to be waited for within its slot."""
        known = self.known_of(model)
        if known is not None and known.bounded:
            await self.leave(Later(known.scope, place, 0, 0))

    def hear(self, known: Known, call: str, model: str, limits: RateLimits | None) -> None:
        """Tell all workers, beside the answer, what its headers said."""
        if limits is None and not known.ramps:
            known.heard = True
            _release(known)
            return
        task = self._telling[call] = asyncio.create_task(self._tell(known, call, model, limits))
        task.add_done_callback(lambda _: self._telling.pop(call, None))

    async def refuse(self, known: Known, call: str, model: str, error: ProviderError) -> bool:
        """Tell all workers of a refusal; return whether the key is parked by it."""
        limited = error.code == FailureCode.RATE_LIMITED and error.retryable
        seconds = (error.retry_after_seconds or 0) if limited else 0
        if seconds >= self._most_parked_seconds:
            seconds = 0  # no message waits for that: each is refused, and fails
        if not seconds and error.limits is None and not (limited and known.bounded):
            return False
        try:
            await quota.heard(
                self._redis,
                known.scope,
                call,
                error.limits,
                model=model_of(model),
                refused=limited,
                parked_seconds=seconds,
            )
        except LogUnavailable as away:
            _log.warning("%s; no other worker hears that a key is limited", away)
            return False
        known.bounded = True
        if seconds > 0:
            self._scopes.parked(known.scope.key)
        return seconds > 0

    async def settle(
        self, known: Known, call: str, tokens: int | None, made: bool, took_seconds: float
    ) -> None:
        """Note that a call is over, and wake who may begin in its place."""
        if (task := self._telling.get(call)) is not None:
            await asyncio.wait([task])  # what others are to go by
        _release(known)
        if call not in known.calls:
            return
        known.calls.discard(call)
        if known.keeping:
            await known.keeping.wait()  # or it would keep the slot after this gives it back
        known.used_at = time.monotonic()
        try:
            stands = await quota.settle(
                self._redis,
                known.scope,
                call,
                tokens=tokens,
                made=made,
                took_seconds=took_seconds,
            )
            await self._heed(known, stands)
        except LogUnavailable as error:
            _log.warning("%s; a call's slot comes free by itself", error)

    def known_of(self, model: str) -> Known | None:
        """What is known of a model's scope; None: nothing ever bounds it."""
        return self._scopes.of(model)

    async def _goes_first(self, known: Known) -> bool:
        """Whether a call may go on uncounted: the first of this process, or nothing is bounded."""
        if known.probe is None:
            known.probe = asyncio.Event()
            await self._keep(known)  # other workers may know more
            if known.bounded:
                _release(known)  # it may have to wait, and the others by what is known
            return not known.bounded
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_PROBE_SECONDS):
                await known.probe.wait()
        known.heard = True  # one that takes so long does not hold them up again
        return not known.bounded

    async def _wait(self, known: Known, place: str, seconds: float) -> None:
        """Wait within the slot until the time has come, or the place is named; a second at most."""
        event = known.waiting[place] = asyncio.Event()
        try:
            async with asyncio.timeout(min(seconds, _BEAT_SECONDS)):
                await event.wait()
        except TimeoutError:
            return
        finally:
            known.waiting.pop(place, None)

    async def _tell(self, known: Known, call: str, model: str, limits: RateLimits | None) -> None:
        try:
            await quota.heard(self._redis, known.scope, call, limits, model=model_of(model))
            known.bounded = known.bounded or limits is not None
        except LogUnavailable as error:
            _log.warning("%s; what a provider said of its limits is lost", error)
        finally:
            known.heard = True
            _release(known)

    async def _keep(self, known: Known) -> None:
        kept = known.keeping = asyncio.Event()
        calls, slot_ms = [*known.calls], self._slot_ms
        try:
            await self._heed(
                known, await quota.keep(self._redis, known.scope, calls, slot_ms=slot_ms)
            )
        except LogUnavailable as error:
            _log.warning("%s; what is left of a key's quota is not known", error)
        finally:
            kept.set()

    async def _heed(self, known: Known, stands: Standing) -> None:
        self._note(known, stands)
        for place in stands.following:
            if (event := known.waiting.get(place.name)) is not None:
                event.set()
            elif place.parked:
                await queue.wake(self._redis, place.name)

    def _note(self, known: Known, stands: Standing) -> None:
        # What is on its way to Redis counts already.
        known.bounded = stands.bounded or bool(self._telling)
        known.ramps = stands.ramps or stands.parked_ms > 0


def _release(known: Known) -> None:
    if known.probe is not None:
        known.probe.set()

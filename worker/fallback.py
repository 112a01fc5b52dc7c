"""Which model of a message is asked next, from the first that is not left alone by all workers.

A message with one model left asks nobody: it has no choice. While Redis is away the order is the
request's alone.
"""

import logging
from collections.abc import Sequence
from typing import Final, NamedTuple

from rejoin.shared import cooling
from rejoin.shared.catalogue import is_agent
from rejoin.shared.errors import LogUnavailable
from rejoin.shared.events import Failed
from rejoin.worker.backoff import MOST_SECONDS
from rejoin.worker.failures import cools, is_of_the_message
from rejoin.worker.kit import Kit

_LONGEST_TRIES_SECONDS: Final = 60.0  # all six of one that refuses at once take 16 at most
_MOST_SEEN: Final = 500

_log = logging.getLogger(__name__)


class Choice(NamedTuple):
    """The place of the model to ask. `on_trial`: it failed, and this message tries it once.

    `reason` is why the first of them was passed over, None where it was not.
    """

    place: int = 0
    on_trial: bool = False
    reason: str | None = None


_FIRST: Final = Choice()


class Fallback:
    """The choice among one message's models, and what all workers are told of them."""

    def __init__(self, kit: Kit, message_id: str) -> None:
        self._kit = kit
        self._message_id = message_id
        self._seen = kit.seen_cooling

    async def choose(self, models: Sequence[str]) -> Choice:
        """Return which of the models to ask; the first one where all are left alone."""
        if len(models) == 1:
            return _FIRST
        found = await self._look(models)
        if found is None or found.place is None:
            return _FIRST
        passed = found.known.get(models[0]) if found.place else None
        return Choice(found.place, found.on_trial, passed.reason if passed else None)

    async def rather_than_wait(
        self, seconds: float, others: Sequence[str], tried_seconds: float = 0.0
    ) -> bool:
        """Whether to go on with another model instead of a pause, one being usable.

        The pause is a long one, or the model's first failure is `tried_seconds` ago: a silent
        provider's tries take minutes, which a reader who has another model need not wait for.
        """
        if not others or (seconds <= MOST_SECONDS and tried_seconds <= _LONGEST_TRIES_SECONDS):
            return False
        found = await self._look(others)
        return found is None or found.place is not None

    def seen(self, model: str) -> int | None:
        """Until when this process knows the model to be left alone; None: it knows of nothing.

        It is to be asked before the call whose end is told to `answered`.
        """
        return self._seen.get(model)

    async def failed(
        self, model: str, failure: Failed, retry_after_seconds: float | None, *, seen: int | None
    ) -> None:
        """Tell all workers that the model's tries are used up, if that says something of it."""
        if is_of_the_message(failure):
            await self.answered(model, seen)
        if is_agent(model) or not cools(failure):
            return
        asked_ms = int(min((retry_after_seconds or 0) * 1000, cooling.MOST_RETRY_AFTER_MS))
        try:
            until_ms = await cooling.fail(
                self._kit.redis,
                model,
                failure.code,
                retry_after_ms=asked_ms,
                waits=self._kit.cooling_waits,
            )
        except LogUnavailable as error:
            _log.warning("%s; no other worker hears that %s failed", error, model)
            return
        self._note(model, until_ms)

    async def answered(self, model: str, seen: int | None) -> None:
        """Tell all workers that the model answers again; `seen` is from before it was asked."""
        if seen is None:
            return
        try:
            await cooling.clear(self._kit.redis, model, seen)
        except LogUnavailable as error:
            _log.warning("%s; no other worker hears that %s answers", error, model)
            return
        if self.seen(model) == seen:
            del self._seen[model]

    async def _look(self, models: Sequence[str]) -> cooling.Chosen | None:
        """What is known of the models; None: Redis is away."""
        try:
            found = await cooling.choose(
                self._kit.redis, self._message_id, models, waits=self._kit.cooling_waits
            )
        except LogUnavailable as error:
            _log.warning("%s; %s asks its models in their order", error, self._message_id)
            return None
        for model in models:
            if model in found.known:
                self._note(model, found.known[model].until_ms)
            else:
                self._seen.pop(model, None)
        return found

    def _note(self, model: str, until_ms: int) -> None:
        self._seen[model] = until_ms
        if len(self._seen) > _MOST_SEEN:  # names that no provider has are noted too
            del self._seen[next(iter(self._seen))]

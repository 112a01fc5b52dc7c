"""Asks the providers for the models they have, and keeps their lists in Redis for the API."""

import asyncio
import logging
import math
from typing import Final

from rejoin.shared import catalogue, keys, own_lists, queue
from rejoin.shared.errors import LogUnavailable, ProviderError
from rejoin.worker.kit import Kit

LIFE_SECONDS: Final = 3600  # a provider that is away so long has nothing to list any more

_EVERY_SECONDS: Final = 300.0
_LOOK_SECONDS: Final = 10.0  # how often a worker looks whether it is its turn
_TURN_SECONDS: Final = 40.0  # one that dies is followed by another, who asks at once
_ANSWER_SECONDS: Final = 20.0

_log = logging.getLogger(__name__)


class Lists:
    """Asks every five minutes, in one worker at a time. `run` does it; its starter cancels it."""

    def __init__(
        self,
        kit: Kit,
        *,
        every_seconds: float = _EVERY_SECONDS,
        answer_seconds: float = _ANSWER_SECONDS,
    ) -> None:
        self._kit = kit
        self._every_seconds = every_seconds
        self._answer_seconds = answer_seconds

    async def run(self) -> None:
        """Ask, for ever."""
        clock = asyncio.get_running_loop().time
        asked_at = -math.inf
        while True:
            try:
                if await self._our_turn() and clock() - asked_at >= self._every_seconds:
                    await self.ask()
                    asked_at = clock()
            except LogUnavailable as error:
                _log.debug("%s; the providers' lists wait", error)
            await asyncio.sleep(min(_LOOK_SECONDS, self._every_seconds))

    async def ask(self) -> None:
        """Ask every configured provider, all at once, and keep what each answers in time.

        Raises:
            LogUnavailable: Redis is away.
        """
        names = [state.name for state in catalogue.providers() if state.configured]
        asked = await asyncio.gather(*map(self._renew, names), return_exceptions=True)
        for error in filter(None, asked):
            raise error

    async def _renew(self, name: str) -> None:
        # Kept as it comes: a provider that hangs holds up no other's list.
        if models := await self._ask(name):
            await own_lists.keep(self._kit.redis, name, models, life_seconds=LIFE_SECONDS)

    async def _ask(self, name: str) -> list[own_lists.ListedModel]:
        """One provider's list; [] where it has none, or none now: an earlier one stays."""
        try:
            async with asyncio.timeout(self._answer_seconds):
                return await self._kit.providers.of(name).models()
        except TimeoutError:
            _log.warning("%s did not list its models in time", name)
        except ProviderError as error:
            _log.warning("%s did not list its models: %s", name, error)
        except Exception:  # noqa: BLE001  an adapter's defect must not end the worker
            _log.exception("the adapter of %s failed to list its models", name)
        return []

    async def _our_turn(self) -> bool:
        redis, worker_id = self._kit.redis, self._kit.worker_id
        return await queue.take_turn(redis, keys.LISTS, worker_id, seconds=_TURN_SECONDS)

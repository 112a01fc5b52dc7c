"""What every run of a worker process works with, and how it waits for Redis."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final, TypeVar

from redis.asyncio import Redis

from rejoin.shared.cooling import USUAL, Waits
from rejoin.shared.db.engine import Database
from rejoin.shared.ending import Ender
from rejoin.shared.errors import LogUnavailable
from rejoin.shared.quota_scope import WINDOW_SECONDS
from rejoin.shared.settings import Settings
from rejoin.shared.settings_file import SettingsFile
from rejoin.worker.admission import Admission
from rejoin.worker.agents.registry import Agents
from rejoin.worker.appender import Appender
from rejoin.worker.openings import Openings
from rejoin.worker.providers.registry import Providers
from rejoin.worker.tools.registry import Tools
from rejoin.worker.validation import Validation

T = TypeVar("T")

_LONGEST_PAUSE_SECONDS: Final = 1.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Kit:
    """What every run of a worker process works with.

    `seen_cooling` is what the process knows of models that failed: until when they are left alone,
    in ms by Redis' clock. `quota_seconds` is how long a quota's minute is.
    """

    settings: Settings
    redis: Redis
    appender: Appender
    providers: Providers
    worker_id: str
    database: Database
    validation: Validation = field(default_factory=Validation)
    openings: Openings = field(default_factory=Openings)
    tools: Tools = field(default_factory=Tools)
    agents: Agents = field(default_factory=Agents)
    file: SettingsFile = field(default_factory=SettingsFile)
    seen_cooling: dict[str, int] = field(default_factory=dict)
    cooling_waits: Waits = USUAL
    quota_seconds: float = WINDOW_SECONDS
    admission: Admission = field(init=False)

    def __post_init__(self) -> None:
        made = Admission(
            self.redis,
            self.file.quota,
            lease_seconds=self.settings.lease_seconds,
            window_seconds=self.quota_seconds,
            most_parked_seconds=self.settings.timeout_total,
        )
        object.__setattr__(self, "admission", made)  # frozen for everybody else

    @property
    def ender(self) -> Ender:
        """This worker as one that ends messages."""
        return Ender(self.redis, self.worker_id, self.settings.open_ttl_seconds)


async def insist(what: str, call: Callable[[], Awaitable[T]]) -> T:
    """Do it, and again while Redis is away; the call bears being repeated."""
    pause = 0.05
    while True:
        try:
            return await call()
        except LogUnavailable as error:
            _log.warning("%s; %s waits", error, what)
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)

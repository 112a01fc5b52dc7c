"""What every endpoint works with: the settings and their file, Redis, the hub, the history."""

from dataclasses import dataclass, field

from redis.asyncio import Redis

from rejoin.api.history import History, NoHistory
from rejoin.api.hub import Hub
from rejoin.shared.db.engine import Database
from rejoin.shared.settings import Settings
from rejoin.shared.settings_file import SettingsFile


@dataclass(frozen=True, slots=True)
class Context:
    """One process' parts, made by `create_app`, opened and closed by its lifespan."""

    settings: Settings
    redis: Redis
    hub: Hub
    database: Database
    history: History = field(default_factory=NoHistory)
    file: SettingsFile = field(default_factory=SettingsFile)

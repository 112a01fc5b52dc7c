"""What every endpoint works with: the settings, Redis, the hub."""

from dataclasses import dataclass

from redis.asyncio import Redis

from rejoin.api.hub import Hub
from rejoin.shared.settings import Settings


@dataclass(frozen=True, slots=True)
class Context:
    """One process' parts, made by `create_app`, opened and closed by its lifespan."""

    settings: Settings
    redis: Redis
    hub: Hub

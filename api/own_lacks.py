"""What providers' own lists say that their models cannot do, where our catalogue knows nothing."""

from collections.abc import Iterable

from redis.asyncio import Redis

from rejoin.shared import catalogue, own_lists
from rejoin.shared.providers import REGISTRY


async def without(redis: Redis, models: Iterable[str], ability: str) -> set[str]:
    """Those that our catalogue does not know, and whose provider lists them as without `ability`.

    Raises:
        LogUnavailable: Redis is away.
    """
    unknown = {model for model in models if catalogue.find(model) is None}
    providers = {model.partition("/")[0] for model in unknown} & {it.name for it in REGISTRY}
    if not providers:
        return set()
    listed = {
        f"{provider}/{model.name}"
        for provider, found in (await own_lists.kept(redis, providers)).items()
        for model in found
        if model.capabilities is not None and ability not in model.capabilities
    }
    return unknown & listed

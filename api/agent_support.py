"""Whether a request's models that are agents are there: only workers know them."""

from redis.asyncio import Redis

from rejoin.api.bounds import redis_answers
from rejoin.shared import registered
from rejoin.shared.catalogue import AGENTS, is_agent
from rejoin.shared.errors import NotFound
from rejoin.shared.request import StoredRequest


async def check_agents(redis: Redis, request: StoredRequest) -> None:
    """Refuse an agent that no worker had within a day.

    Raises:
        NotFound: the model, or a fallback, is none.
        Unavailable: Redis is away, or not within 3.5 s.
    """
    models = {"": request.model}
    models |= {f"fallbacks.{at}: ": model for at, model in enumerate(request.fallbacks)}
    if not any(map(is_agent, models.values())):
        return
    async with redis_answers():
        known = await registered.known(redis)
    there = frozenset[str]() if known is None else known.agents
    for at, model in models.items():
        if is_agent(model) and model.removeprefix(f"{AGENTS}/") not in there:
            raise NotFound(f"{at}there is no model {model}")

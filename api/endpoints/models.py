"""GET /api/models: the models there are, by our own file, the providers' lists and the workers."""

import asyncio
from dataclasses import asdict
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from rejoin.api import model_list
from rejoin.api.answers import json_answer
from rejoin.api.bounds import redis_answers
from rejoin.api.context import Context
from rejoin.shared import catalogue, cooling, own_lists, registered
from rejoin.shared.cooling import Cooling
from rejoin.shared.errors import Unavailable
from rejoin.shared.own_lists import ListedModel

_REDIS_SECONDS: Final = 1.0  # our own file is an answer too


class ModelsEndpoint:
    """The endpoint. It asks no provider: a worker did, and left the lists in Redis."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def get(self, _: Request) -> Response:
        """Answer one request; while Redis is away, with our own file's models alone."""
        states = catalogue.providers()
        lists, agents, left_alone = await self._told([state.name for state in states])
        # In a thread: the first time the prices are imported.
        found = await asyncio.to_thread(model_list.entries, states, lists)
        found += model_list.agents(agents)
        found = model_list.with_cooling(found, left_alone)
        return json_answer({"models": [asdict(entry) for entry in found]})

    async def _told(
        self, providers: list[str]
    ) -> tuple[dict[str, list[ListedModel]], frozenset[str], dict[str, Cooling]]:
        """What workers told: the providers' lists, the agents they have, and what failed them."""
        redis = self._context.redis
        try:
            async with redis_answers(_REDIS_SECONDS):
                lists = await own_lists.kept(redis, providers)
                known = await registered.known(redis)
                left_alone = await cooling.left_alone(redis)
        except Unavailable:
            return {}, frozenset(), {}
        return lists, frozenset() if known is None else known.agents, left_alone

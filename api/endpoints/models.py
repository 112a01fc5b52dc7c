"""GET /api/models: the models there are, from our own file and from the providers' own lists."""

import asyncio
from dataclasses import asdict
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from rejoin.api import model_list
from rejoin.api.answers import json_answer
from rejoin.api.bounds import redis_answers
from rejoin.api.context import Context
from rejoin.shared import catalogue, own_lists
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
        lists = await self._lists([state.name for state in states])
        # In a thread: the first time the prices are imported.
        found = await asyncio.to_thread(model_list.entries, states, lists)
        return json_answer({"models": [asdict(entry) for entry in found]})

    async def _lists(self, providers: list[str]) -> dict[str, list[ListedModel]]:
        try:
            async with redis_answers(_REDIS_SECONDS):
                return await own_lists.kept(self._context.redis, providers)
        except Unavailable:
            return {}

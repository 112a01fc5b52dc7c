"""Whether the tools that a request names are there, and its models may call any."""

from redis.asyncio import Redis

from rejoin.api.bounds import redis_answers
from rejoin.api.own_lacks import without
from rejoin.shared import registered
from rejoin.shared.errors import BadRequest
from rejoin.shared.registered import Registered
from rejoin.shared.request import StoredRequest

_MOST_NAMED = 50  # of the tools there are


async def check_tools(redis: Redis, request: StoredRequest) -> None:
    """Refuse a name that no worker had within a day, and models whose provider says: no tools.

    What our own catalogue says is `check_abilities`'s to tell.

    Raises:
        BadRequest: naming the tool, the model's `tools`, or the fallback.
        Unavailable: Redis is away, or not within 3.5 s.
    """
    if not request.tools:
        return
    async with redis_answers():
        if any(isinstance(tool, str) for tool in request.tools):
            _check_names(request, await registered.known(redis))
        unable = await without(redis, [request.model, *request.fallbacks], "tools")
    if request.model in unable:
        raise BadRequest(
            f"{request.model} calls no tools: leave them out, or choose a model that does",
            field=("tools",),
        )
    for at, model in enumerate(request.fallbacks):
        if model in unable:
            mend = f"{model} calls no tools: name another fallback, or leave tools out"
            raise BadRequest(mend, field=("fallbacks", at))


def _check_names(request: StoredRequest, known: Registered | None) -> None:
    if known is None:
        return  # no worker has told yet: the one that runs the message knows
    for at, tool in enumerate(request.tools):
        if isinstance(tool, str) and tool not in known.tools:
            raise BadRequest(_mend(tool, known), field=("tools", at))


def _mend(name: str, known: Registered) -> str:
    names = sorted(known.tools)
    if not names:
        return f"no worker has a tool called {name}, nor any other: REJOIN_TOOLS names their files"
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return f"no worker has a tool called {name}; there are {', '.join(names[:_MOST_NAMED])}{more}"

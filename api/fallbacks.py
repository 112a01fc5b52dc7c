"""Which models a message goes on with: those that its request names, else the settings file's."""

from collections.abc import Iterable
from dataclasses import replace

from redis.asyncio import Redis

from rejoin.api.abilities import check_abilities
from rejoin.api.own_lacks import without
from rejoin.api.part_support import check_parts, shows_images
from rejoin.shared.catalogue import check_model
from rejoin.shared.errors import BadRequest, NotFound, SettingsError
from rejoin.shared.request import StoredRequest
from rejoin.shared.settings_file import SETTING, SettingsFile


def check_file(file: SettingsFile) -> None:
    """Refuse a settings file whose `[fallbacks]` names a model that no worker could use.

    Raises:
        SettingsError: naming it.
    """
    for model, others in file.fallbacks.items():
        for one in (model, *others):
            try:
                check_model(one)
            except (BadRequest, NotFound) as error:
                raise SettingsError(f"{SETTING}: [fallbacks] {model!r}: {error}") from error


async def with_fallbacks(
    redis: Redis, file: SettingsFile, request: StoredRequest, *, named: bool
) -> StoredRequest:
    """Return the request with the fallbacks it is stored with, each once and none its own model.

    `named`: it says itself which, be it none. Else they are the settings file's for its model (with
    its parameters, or without), but for those that are known not to take such a request.

    Raises:
        LogUnavailable: Redis is away, and was needed.
    """
    if named:
        return _with(request, request.fallbacks)
    ours = file.fallbacks.get(request.model.partition("?")[0], [])
    able = [one for one in file.fallbacks.get(request.model, ours) if _takes(one, request)]
    asked = {"tools": bool(request.tools), "vision": shows_images(request)}
    for ability in (name for name, is_asked in asked.items() if able and is_asked):
        unable = await without(redis, able, ability)
        able = [one for one in able if one not in unable]
    return _with(request, able)


def _with(request: StoredRequest, fallbacks: Iterable[str]) -> StoredRequest:
    kept = [model for model in dict.fromkeys(fallbacks) if model != request.model]
    return replace(request, fallbacks=kept)


def _takes(model: str, request: StoredRequest) -> bool:
    asked = replace(request, model=model, fallbacks=[])
    try:
        check_parts(asked, single=False)
        check_abilities(asked)
    except BadRequest:
        return False
    return True

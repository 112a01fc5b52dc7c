"""Whether the models of a request take its images and files, as far as that is known.

Our catalogue says so; of images in a model that it lacks, the provider's own list.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from redis.asyncio import Redis

from rejoin.api.bounds import redis_answers
from rejoin.api.own_lacks import without
from rejoin.shared.content import FilePart, ImagePart
from rejoin.shared.errors import BadRequest
from rejoin.shared.part_support import lack
from rejoin.shared.request import StoredRequest


class _Place(NamedTuple):
    """A part that is no text, and the field that holds it."""

    loc: tuple[str | int, ...]
    part: ImagePart | FilePart


def check_parts(request: StoredRequest, *, single: bool) -> None:
    """Refuse a part that the model or a fallback is known not to take.

    `single`: the turn came as `input`, not in `messages`.

    Raises:
        BadRequest: naming the part, or the fallback.
    """
    _refuse(request, list(_places(request, single=single)), lack)


async def check_images(redis: Redis, request: StoredRequest, *, single: bool) -> None:
    """Refuse an image for a model that our own file does not know and its provider lists as blind.

    A PDF is left to the provider: some read it for any model.

    Raises:
        BadRequest: as `check_parts`.
        Unavailable: Redis is away, or not within 3.5 s.
    """
    if not shows_images(request):
        return
    async with redis_answers():
        blind = await without(redis, [request.model, *request.fallbacks], "vision")
    images = [it for it in _places(request, single=single) if isinstance(it.part, ImagePart)]
    _refuse(
        request, images, lambda model, _: f"{model} takes no images" if model in blind else None
    )


def shows_images(request: StoredRequest) -> bool:
    """Whether a turn of it has an image."""
    return any(isinstance(place.part, ImagePart) for place in _places(request, single=True))


def _refuse(
    request: StoredRequest,
    places: Sequence[_Place],
    lack_of: Callable[[str, ImagePart | FilePart], str | None],
) -> None:
    for place in places:
        if (said := lack_of(request.model, place.part)) is not None:
            mend = f"{said}: leave it out, or choose a model that takes it"
            raise BadRequest(mend, field=place.loc)
    for at, model in enumerate(request.fallbacks):
        for place in places:
            if (said := lack_of(model, place.part)) is not None:
                where = ".".join(str(name) for name in place.loc)
                mend = f"{said}, such as {where}: name another fallback, or leave it out"
                raise BadRequest(mend, field=("fallbacks", at))


def _places(request: StoredRequest, *, single: bool) -> Iterator[_Place]:
    for at, turn in enumerate(request.turns):
        field: tuple[str | int, ...] = ("input",) if single else ("messages", at, "content")
        for place, part in enumerate(() if isinstance(turn.content, str) else turn.content):
            if isinstance(part, ImagePart | FilePart):
                yield _Place((*field, place), part)

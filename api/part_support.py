"""Whether the models of a request take its images and files, as far as the catalogue knows them.

Of a model that is not in it nothing is known: its provider decides.
"""

from collections.abc import Iterator
from typing import NamedTuple

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
    places = list(_places(request, single=single))
    if not places:
        return
    for place in places:
        if (said := lack(request.model, place.part)) is not None:
            mend = f"{said}: leave it out, or choose a model that takes it"
            raise BadRequest(mend, field=place.loc)
    for at, model in enumerate(request.fallbacks):
        for place in places:
            if (said := lack(model, place.part)) is not None:
                where = ".".join(str(name) for name in place.loc)
                mend = f"{said}, such as {where}: name another fallback, or leave it out"
                raise BadRequest(mend, field=("fallbacks", at))


def _places(request: StoredRequest, *, single: bool) -> Iterator[_Place]:
    for at, turn in enumerate(request.turns):
        field: tuple[str | int, ...] = ("input",) if single else ("messages", at, "content")
        for place, part in enumerate(() if isinstance(turn.content, str) else turn.content):
            if isinstance(part, ImagePart | FilePart):
                yield _Place((*field, place), part)

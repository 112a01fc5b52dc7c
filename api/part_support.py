"""Whether the models of a request take its images and files, as far as the catalogue knows them.

Of a model that is not in it nothing is known: its provider decides.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

from rejoin.shared import catalogue
from rejoin.shared.content import FilePart, ImagePart
from rejoin.shared.errors import BadRequest
from rejoin.shared.request import StoredRequest

_TEXT_ALONE: Final = frozenset({"demo"})  # providers none of whose models takes anything else


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
        if (lack := _lack(request.model, place.part)) is not None:
            mend = f"{lack}: leave it out, or choose a model that takes it"
            raise BadRequest(mend, field=place.loc)
    for at, model in enumerate(request.fallbacks):
        for place in places:
            if (lack := _lack(model, place.part)) is not None:
                where = ".".join(str(name) for name in place.loc)
                mend = f"{lack}, such as {where}: name another fallback, or leave it out"
                raise BadRequest(mend, field=("fallbacks", at))


def _places(request: StoredRequest, *, single: bool) -> Iterator[_Place]:
    for at, turn in enumerate(request.turns):
        field: tuple[str | int, ...] = ("input",) if single else ("messages", at, "content")
        for place, part in enumerate(() if isinstance(turn.content, str) else turn.content):
            if isinstance(part, ImagePart | FilePart):
                yield _Place((*field, place), part)


def _lack(model: str, part: ImagePart | FilePart) -> str | None:
    """Say what the model does not take; None where it takes the part, or nothing is known."""
    what = "images" if isinstance(part, ImagePart) else "files"
    provider = model.partition("/")[0]
    if provider in _TEXT_ALONE:
        return f"{model} takes no {what}"
    if provider == "ollama":  # which fetches nothing, and knows no file
        if isinstance(part, ImagePart) and not part.url.startswith("data:"):
            return f"{model} takes images as data: URLs alone"
        if isinstance(part, FilePart) and not part.file_data.startswith("data:text/"):
            return f"{model} takes no files but text"
    # A PDF is shown to a model page by page, as images; a text file is text.
    if isinstance(part, FilePart) and part.file_data.startswith("data:text/"):
        return None
    known = catalogue.find(model)
    blind = known is not None and known.capabilities.vision is False
    return f"{model} takes no {what}" if blind else None

"""Whether the models of a request can do what it asks of them, as far as the catalogue knows.

Of a model that is not in our own file nothing is known: its provider decides.
"""

from collections.abc import Iterator
from typing import Final

from rejoin.shared import catalogue
from rejoin.shared.catalogue import Capabilities
from rejoin.shared.errors import BadRequest
from rejoin.shared.request import StoredRequest

_HEEDLESS: Final = frozenset({"demo"})  # takes every setting and heeds none


def check_abilities(request: StoredRequest) -> None:
    """Refuse a setting that the model or a fallback is known to have no use for.

    Raises:
        BadRequest: naming the setting, or the fallback.
    """
    for setting, lack in _lacks(request.model, request):
        mend = f"{request.model} {lack}: leave it out, or choose a model that does"
        raise BadRequest(mend, field=(setting,))
    for at, model in enumerate(request.fallbacks):
        for setting, lack in _lacks(model, request):
            mend = f"{model} {lack}: name another fallback, or leave {setting} out"
            raise BadRequest(mend, field=("fallbacks", at))


def _lacks(model: str, request: StoredRequest) -> Iterator[tuple[str, str]]:
    if model.partition("/")[0] in _HEEDLESS:
        return
    known = _known(model)
    if request.response_format is not None and known.json_schema is False:
        yield "response_format", "fits its answer to no JSON schema"
    if request.tools and known.tools is False:
        yield "tools", "calls no tools"
    # "none" asks for what such a model does anyway.
    if request.reasoning_effort not in (None, "none") and known.reasoning is False:
        yield "reasoning_effort", "takes no reasoning effort"


def _known(model: str) -> Capabilities:
    found = catalogue.find(model)
    return Capabilities() if found is None else found.capabilities

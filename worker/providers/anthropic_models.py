"""Reads the pages of the list of models of Anthropic's API."""

import json
from collections.abc import Mapping
from typing import Final, NamedTuple

from rejoin.worker.providers import error_objects
from rejoin.worker.providers.base import ListedModel

# What the API calls a capability of ours. It names none for tools: every model of its takes them.
_NAMES: Final[Mapping[str, str]] = {
    "image_input": "vision",
    "structured_outputs": "json_schema",
    "thinking": "reasoning",
}


class Page(NamedTuple):
    """One page; `after` is where the next one begins, None on the last."""

    models: list[ListedModel]
    after: str | None


def read_page(body: bytes) -> Page:
    """Read a page; a model without a name is left out.

    Raises:
        ProviderError: `provider_protocol`, it is none.
    """
    try:
        page = json.loads(body)
    except (ValueError, RecursionError):
        page = None
    data = page.get("data") if isinstance(page, dict) else None
    if not isinstance(page, dict) or not isinstance(data, list):
        raise error_objects.protocol("the answer is no list of models")
    models = [model for entry in data if (model := _model(entry)) is not None]
    last = page.get("last_id")
    return Page(models, last if page.get("has_more") is True and isinstance(last, str) else None)


def _model(entry: object) -> ListedModel | None:
    if not isinstance(entry, dict) or not isinstance(name := entry.get("id"), str) or not name:
        return None
    can = entry.get("capabilities")
    context, most = (_tokens(entry.get(field)) for field in ("max_input_tokens", "max_tokens"))
    return ListedModel(name, context, most, _able(can) if isinstance(can, dict) else None)


def _able(can: Mapping[str, object]) -> frozenset[str]:
    named = ((ours, can.get(theirs)) for theirs, ours in _NAMES.items())
    has = (ours for ours, said in named if isinstance(said, dict) and said.get("supported") is True)
    return frozenset({"tools", *has})


def _tokens(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None

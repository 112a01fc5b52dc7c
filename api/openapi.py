"""GET /openapi.json: the API described in OpenAPI 3.1, the body's schema by pydantic itself."""

from functools import cache
from importlib.metadata import version
from typing import Final

from pydantic.json_schema import models_json_schema
from rejoin.api.answers import json_answer
from rejoin.api.schemas import MessageBody
from starlette.requests import Request
from starlette.responses import Response

Schema = dict[str, object]

_JSON: Final = "application/json"
_REFS: Final = "#/components/schemas/{model}"


async def openapi(_: Request) -> Response:
    """Return the description."""
    return json_answer(document())


@cache
def document() -> Schema:
    """The description as an object."""
    _, body = models_json_schema([(MessageBody, "validation")], ref_template=_REFS)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Rejoin",
            "version": version("rejoin"),
            "summary": "LLM answers that survive: resumable streams of chat messages",
        },
        "paths": {},
        "components": {"schemas": {**body["$defs"]}},
    }

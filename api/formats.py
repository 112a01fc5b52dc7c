"""`response_format` as a body has it: the JSON schema that the answer's text is to fit."""

import asyncio
import json
from functools import lru_cache
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from rejoin.shared.json_schema import Path, bounded, check_schema
from rejoin.shared.request import ResponseFormat

_AT: Final[Path] = ("response_format", "json_schema", "schema")


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")


class JsonSchema(_Strict):
    """A schema and its name."""

    name: Annotated[str, Field(pattern="^[a-zA-Z0-9_-]{1,64}$")]
    schema_: Annotated[
        dict[str, object], Field(alias="schema", description="References stay within it")
    ]
    description: Annotated[str | None, Field(max_length=1024)] = None
    strict: bool | None = None


class ResponseFormatBody(_Strict):
    """How the answer's text is to be."""

    type: Literal["json_schema"]
    json_schema: JsonSchema

    def stored(self) -> ResponseFormat:
        """Return it as the worker reads it."""
        held = self.json_schema
        return ResponseFormat(held.name, held.schema_, held.description, held.strict)


async def check_format(wanted: ResponseFormat | None) -> None:
    """Refuse a schema that is none; it is looked at in a thread, and once while it is known.

    Raises:
        BadRequest: naming the place in the schema.
    """
    if wanted is not None:
        await asyncio.to_thread(_check, bounded(wanted.schema, at=_AT))


@lru_cache(maxsize=256)
def _check(schema: str) -> None:
    check_schema(json.loads(schema), at=_AT)

"""`tools` as a body has them: names of registered ones, and definitions of the client's own."""

import asyncio
import json
import re
from functools import lru_cache
from typing import Annotated, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainValidator

from rejoin.api.parts import wrong_at
from rejoin.shared.errors import BadRequest
from rejoin.shared.json_schema import MOST_VALUES, Path, bounded, check_schema
from rejoin.shared.request import ToolDefinition

MOST_TOOLS: Final = 128  # OpenAI's own bound
MOST_SCHEMA_VALUES: Final = 3 * MOST_VALUES  # of all of them: to check them takes a second or two

_PATTERN: Final = "^[a-zA-Z0-9_-]{1,64}$"
_MOST_ABOUT: Final = 8192


class ToolBody(BaseModel):
    """A tool that the client runs itself; `parameters` is the JSON schema of its arguments."""

    model_config = ConfigDict(strict=True, extra="forbid")

    name: Annotated[str, Field(pattern=_PATTERN)]
    description: Annotated[str | None, Field(max_length=_MOST_ABOUT)] = None
    parameters: Annotated[
        dict[str, object] | None,
        Field(description="Of an object; references stay within it. None: it takes no arguments"),
    ] = None

    def stored(self) -> ToolDefinition:
        """Return it as the worker reads it."""
        parameters = self.parameters or {"type": "object", "properties": {}}
        return ToolDefinition(self.name, self.description or "", parameters)


def _tool(value: object) -> str | ToolDefinition:
    # By hand: pydantic's own unions put the name of each kind into `loc`.
    if isinstance(value, dict):
        return ToolBody.model_validate(value).stored()
    if not isinstance(value, str):
        raise wrong_at((), "a tool is a registered one's name, or an object that defines one", None)
    if re.fullmatch(_PATTERN.removesuffix("$"), value) is None:
        raise wrong_at((), "a tool's name has 1 to 64 of a-z, A-Z, 0-9, _ and -", None)
    return value


def name_of(tool: str | ToolDefinition) -> str:
    """What the model calls it."""
    return tool if isinstance(tool, str) else tool.name


def _each_once(tools: list[str | ToolDefinition]) -> list[str | ToolDefinition]:
    seen: set[str] = set()
    for at, tool in enumerate(tools):
        if name_of(tool) in seen:
            raise wrong_at((at,), f"another tool is called {name_of(tool)}", None)
        seen.add(name_of(tool))
    return tools


_Name = Annotated[str, Field(pattern=_PATTERN)]
_Tool = Annotated[
    str | ToolDefinition, PlainValidator(_tool, json_schema_input_type=_Name | ToolBody)
]
ToolList = Annotated[
    list[_Tool],
    Field(
        max_length=MOST_TOOLS,
        description="Names of registered tools, and definitions of those the client runs itself",
    ),
    AfterValidator(_each_once),
]


async def check_definitions(tools: list[str | ToolDefinition]) -> None:
    """Refuse parameters that are no schema of an object; looked at in a thread, while new.

    Raises:
        BadRequest: naming the place in the schema.
    """
    left = MOST_SCHEMA_VALUES
    for at, tool in enumerate(tools):
        if isinstance(tool, str):
            continue
        where: Path = ("tools", at, "parameters")
        text = bounded(tool.parameters, at=where)
        left -= _values(tool.parameters)
        if left < 0:
            mend = f"the schemas of all tools have at most {MOST_SCHEMA_VALUES} objects and lists"
            raise BadRequest(mend, field=where)
        if tool.parameters.get("type") != "object":
            raise BadRequest('arguments are an object: "type": "object"', field=(*where, "type"))
        await asyncio.to_thread(_check, text, where)


@lru_cache(maxsize=1024)
def _check(schema: str, at: Path) -> None:
    check_schema(json.loads(schema), at=at)


def _values(schema: object) -> int:
    """How many objects and lists it has; it is `bounded`."""
    if isinstance(schema, dict):
        return 1 + sum(map(_values, schema.values()))
    return 1 + sum(map(_values, schema)) if isinstance(schema, list) else 0

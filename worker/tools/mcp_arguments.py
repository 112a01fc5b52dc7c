"""Whether the arguments of a call fit the JSON schema that an MCP server gave for its tool.

Most schemas are checked at once, before anybody is asked for consent. One that may take long (a
regular expression, a schema within itself) is left to the validator process, as the call begins:
it can be ended, and the worker's loop cannot.
"""

from collections.abc import Iterable, Mapping
from typing import Final

from rejoin.shared.errors import BadRequest, ToolError
from rejoin.shared.events import dumps
from rejoin.shared.json_schema import Schema, bounded, check_schema, faults
from rejoin.worker.validation import Unfit, Validation

# Applied keyword by keyword these take more than a look at each value, or how much is not known.
_SLOW: Final = frozenset(
    {
        "pattern",
        "patternProperties",
        "$dynamicRef",
        "$recursiveRef",
        "unevaluatedItems",
        "unevaluatedProperties",
        "uniqueItems",
    }
)
_DEFINITIONS: Final = frozenset({"$defs", "definitions"})  # counted where they are referred to
_MOST_LOOKS: Final = 5_000  # schemas within the schema, references followed


class Arguments:
    """The check of one tool's arguments."""

    def __init__(self, schema: Schema) -> None:
        """Take a tool's schema; up to half a second, so not in an event loop.

        Raises:
            BadRequest: it is no schema that can be applied by itself.
        """
        if schema.get("type") != "object":
            raise BadRequest("its arguments are no object", field=("inputSchema",))
        bounded(schema, at=("inputSchema",))
        check_schema(schema, at=("inputSchema",))
        self.schema = schema
        self.quick = _quick(schema)

    def check(self, arguments: Mapping[str, object]) -> None:
        """Refuse what does not fit, where that is seen quickly.

        Raises:
            ToolError: naming the places.
        """
        if self.quick:
            _refuse(faults(self.schema, dumps(arguments)))

    async def check_all(self, arguments: Mapping[str, object], validation: Validation) -> None:
        """Refuse what does not fit and `check` could not see.

        Raises:
            ToolError: naming the places, or because it cannot be said.
        """
        if self.quick:
            return
        try:
            _refuse(await validation.faults(self.schema, dumps(arguments)))
        except (Unfit, OSError) as error:
            raise ToolError(f"the arguments could not be checked: {error}") from error


def _refuse(found: list[str]) -> None:
    if found:
        raise ToolError(f"the arguments do not fit: {'; '.join(found)}")


def _quick(schema: Schema) -> bool:
    try:
        return _looks(schema, schema, ()) <= _MOST_LOOKS
    except RecursionError:
        return False


def _looks(value: object, root: Schema, followed: tuple[str, ...]) -> int:
    """How many schemas one check applies at the most, about; beyond the bound it stops to count."""
    if isinstance(value, list):
        return _sum(value, root, followed)
    if not isinstance(value, dict):
        return 0
    # With an object as its value it is a property of that name.
    if any(
        name in _SLOW and (name == "patternProperties" or not isinstance(value[name], dict))
        for name in value
    ):
        return _MOST_LOOKS + 1
    looks = 1 + _sum([value[name] for name in value if name not in _DEFINITIONS], root, followed)
    looks += _sum(value.get("oneOf", ()), root, followed)  # each of them is tried twice
    if isinstance(reference := value.get("$ref"), str):
        if reference in followed:
            return _MOST_LOOKS + 1  # a schema within itself
        looks += _looks(_at(reference, root), root, (*followed, reference))
    return looks


def _sum(values: Iterable[object], root: Schema, followed: tuple[str, ...]) -> int:
    looks = 0
    for value in values:
        looks += _looks(value, root, followed)
        if looks > _MOST_LOOKS:
            break
    return looks


def _at(reference: str, root: Schema) -> object:
    """What a reference within the schema names; what no plain path leads to counts as slow."""
    if reference == "#":
        return root
    found: object = root
    for part in reference.removeprefix("#/").split("/"):
        if not isinstance(found, dict) or part not in found:
            return {"pattern": reference}
        found = found[part]
    return found

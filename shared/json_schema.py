"""JSON schemas that callers send: whether one is a schema at all, and what does not fit it.

Nothing is ever fetched: a reference that leaves its schema is refused.
"""

import json
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Final, cast

from jsonschema.exceptions import SchemaError, ValidationError
from jsonschema.protocols import Validator
from jsonschema.validators import (
    Draft4Validator,
    Draft6Validator,
    Draft7Validator,
    Draft201909Validator,
    Draft202012Validator,
)
from referencing import Registry
from referencing.exceptions import Unresolvable
from referencing.jsonschema import specification_with

from rejoin.shared.errors import BadRequest
from rejoin.shared.events import dumps

MOST_CHARS: Final = 65_536  # of the schema as JSON
MOST_VALUES: Final = 2_000  # objects and lists; checking them all takes about half a second
DEEPEST: Final = 64  # levels of objects and lists

_MOST_FAULTS: Final = 10
_LONGEST_FAULT: Final = 300
_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_KINDS: Final[Mapping[str, type[Validator]]] = {
    _DIALECT: Draft202012Validator,
    "https://json-schema.org/draft/2019-09/schema": Draft201909Validator,
    "http://json-schema.org/draft-07/schema": Draft7Validator,
    "http://json-schema.org/draft-06/schema": Draft6Validator,
    "http://json-schema.org/draft-04/schema": Draft4Validator,
}
_REFERENCES: Final = frozenset({"$ref", "$dynamicRef", "$recursiveRef"})
_DATA: Final = frozenset({"const", "enum", "default", "examples"})
_BY_NAME: Final = frozenset(
    {"properties", "patternProperties", "$defs", "definitions", "dependentSchemas", "dependencies"}
)

Path = tuple[str | int, ...]
Schema = Mapping[str, object]


def bounded(schema: Schema, *, at: Path) -> str:
    """Return the schema as JSON; `at` is the field that holds it.

    Raises:
        BadRequest: it is too deep or too large to look at.
    """
    left: list[tuple[int, object]] = [(1, schema)]
    values = 0
    while left:
        depth, value = left.pop()
        values += 1
        if depth > DEEPEST:
            raise BadRequest(f"a schema is at most {DEEPEST} levels deep", field=at)
        if values > MOST_VALUES:
            raise BadRequest(f"a schema has at most {MOST_VALUES} objects and lists", field=at)
        inner = value.values() if isinstance(value, dict) else cast(list[object], value)
        left += [(depth + 1, member) for member in inner if isinstance(member, dict | list)]
    text = dumps(schema)
    if len(text) > MOST_CHARS:
        raise BadRequest(f"a schema has at most {MOST_CHARS} characters", field=at)
    return text


def check_schema(schema: Schema, *, at: Path) -> None:
    """Refuse what is no JSON schema, or one that cannot be applied by itself.

    `at` is the field that holds it; it is `bounded`. Takes up to half a second: not for an event
    loop.

    Raises:
        BadRequest: naming the place in the schema.
    """
    kind = _kind(schema)
    if kind is None:
        mend = f"this dialect is not known; leave it out, or name {_DIALECT}"
        raise BadRequest(mend, field=(*at, "$schema"))
    try:
        kind.check_schema(dict(schema))
    except SchemaError as error:
        found = (*at, *error.absolute_path)
        raise BadRequest(f"no JSON schema: {_cut(error.message)}", field=found) from error
    except (OverflowError, RecursionError) as error:
        raise BadRequest("a pattern in it is no regular expression", field=at) from error
    _check_references(schema, at)


def faults(schema: Schema, text: str) -> list[str]:
    """Say where `text` is no JSON or does not fit `schema`, ten places at most; [] where it fits.

    Takes as long as the schema's author likes: only for a process that can be ended.

    Raises:
        Exception: the schema cannot be applied, for example one that refers to itself for ever.
    """
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except ValueError as error:
        return [_cut(f"it is not JSON: {error}")]
    except RecursionError:
        return ["it is JSON nested too deeply"]
    kind = _kind(schema) or Draft202012Validator
    validator = kind(dict(schema), registry=Registry())
    return [_fault(error) for error in islice(validator.iter_errors(value), _MOST_FAULTS)]


def _fault(error: ValidationError) -> str:
    return f"{_cut(error.json_path)}: {_cut(error.message)}"


def _kind(schema: Schema) -> type[Validator] | None:
    return _KINDS.get(str(schema.get("$schema", _DIALECT)).removesuffix("#"))


def _check_references(schema: Schema, at: Path) -> None:
    specification = specification_with(str(schema.get("$schema", _DIALECT)))
    root = specification.create_resource(dict(schema))
    resolver = Registry().resolver_with_root(root)
    for path, reference in _references(schema):
        if path[-1] == "$id":
            mend = "only the schema itself may have an $id; name its parts in $defs"
            raise BadRequest(mend, field=(*at, *path))
        if not reference.startswith("#"):
            mend = "a reference to another schema is not followed; put it into $defs"
            raise BadRequest(mend, field=(*at, *path))
        try:
            target = resolver.lookup(reference).contents
        except (Unresolvable, ValueError) as error:
            mend = f"the schema has nothing at {_cut(reference)}"
            raise BadRequest(mend, field=(*at, *path)) from error
        if not isinstance(target, dict | bool):
            raise BadRequest(f"no schema is at {_cut(reference)}", field=(*at, *path))


def _references(schema: Schema) -> Iterator[tuple[Path, str]]:
    """Find the references, and an `$id` below the root: it would change what they refer to."""
    left: list[tuple[Path, object]] = [((), schema)]
    while left:
        path, value = left.pop()
        if isinstance(value, list):
            left += [((*path, at), member) for at, member in enumerate(value)]
        if not isinstance(value, dict):
            continue
        for name, member in value.items():
            here = (*path, name)
            if isinstance(member, str) and (name in _REFERENCES or (name == "$id" and path)):
                yield here, member
            elif name in _BY_NAME and isinstance(member, dict):
                left += [((*here, key), inner) for key, inner in member.items()]
            elif name not in _DATA:
                left.append((here, member))


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no number in JSON")


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST_FAULT else f"{text[:_LONGEST_FAULT]} …"

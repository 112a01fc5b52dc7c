"""What a tool gives, as plain JSON values: whatever a log, a model and a client can hold."""

import dataclasses
import json
from collections.abc import Set as AbstractSet
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from uuid import UUID

from pydantic import BaseModel
from pydantic_core import PydanticSerializationError, to_jsonable_python

# Named, so that nothing that may have no end, a generator for one, is taken for a list.
_TURNED = (
    *(BaseModel, Enum, AbstractSet, Decimal, UUID, PurePath),
    *(datetime, date, time, timedelta),
)


class NotPlain(ValueError):
    """A value is none that JSON has, or is too long; the text says why."""


def plain(value: object, *, most_bytes: int) -> object:
    """Return `value` as JSON would give it back: models and dataclasses are objects there.

    It shares nothing with `value`, which its tool may go on to change. Of a value that is too long
    no more is looked at than `most_bytes` of its JSON.

    Raises:
        NotPlain: it is not JSON, or its JSON is longer than `most_bytes`.
    """
    try:
        text = _encoded(value, most_bytes)
    except UnicodeEncodeError as error:
        raise NotPlain("not valid Unicode: it has half a surrogate pair") from error
    except RecursionError as error:
        raise NotPlain("nested too deeply") from error
    except (TypeError, ValueError, PydanticSerializationError) as error:
        raise NotPlain(f"not JSON: {error}") from error
    if text is None:
        raise NotPlain(f"longer than the {most_bytes} bytes of JSON that are allowed")
    return json.loads(text)


def _encoded(value: object, most_bytes: int) -> str | None:
    """The JSON of `value`, or None where it is too long."""
    parts = []
    for part in _ENCODER.iterencode(value):
        most_bytes -= len(part.encode())
        if most_bytes < 0:
            return None
        parts.append(part)
    return "".join(parts)


def _turned(value: object) -> object:
    """What stands for a value that JSON has not itself."""
    is_instance = dataclasses.is_dataclass(value) and not isinstance(value, type)
    if is_instance or isinstance(value, _TURNED):
        return to_jsonable_python(value)
    raise TypeError(f"it has no {type(value).__name__}")


_ENCODER = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_turned
)

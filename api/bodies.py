"""Reads a request's JSON body, within its limit."""

import asyncio
import json
import math
from collections.abc import Iterator
from typing import Final, cast

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope

from rejoin.shared.errors import BadRequest

_BODY_SECONDS: Final = 60  # for a whole body: uvicorn itself waits for ever
_MOST_NAMED: Final = 6  # levels of a place that is told; a schema may be deeper

Fields = dict[str, object]


async def read_object(
    scope: Scope, receive: Receive, *, most_bytes: int, optional: bool = False
) -> Fields:
    """Return the JSON object that the body holds; where it is `optional`, {} for an empty one.

    Raises:
        BadRequest: 415 not JSON by its type, 413 over `most_bytes`, 400 malformed, 408 too slow,
            422 JSON but no object, or with text that UTF-8 has not.
        ClientDisconnect: the client is gone.
    """
    headers = Headers(scope=scope)
    announced = headers.get("content-length", "")
    if optional and (announced == "0" or not (announced or "transfer-encoding" in headers)):
        return {}
    _check_type(headers)
    if announced.isdigit() and int(announced) > most_bytes:
        raise _too_large(most_bytes)
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            body = await _read(receive, most_bytes)
    except TimeoutError as error:
        raise BadRequest("the body did not arrive in time", status=408) from error
    return {} if optional and not body else parse_object(body)


def parse_object(body: bytes) -> Fields:
    """Parse a JSON object.

    Raises:
        BadRequest: 400 malformed; 422 no object, or with half a surrogate pair, which is no text.
    """
    try:
        value = json.loads(
            body.decode("utf-8-sig"), parse_constant=_refuse_constant, parse_float=_finite
        )
    except UnicodeDecodeError as error:
        raise BadRequest("the body is not UTF-8", status=400) from error
    except json.JSONDecodeError as error:
        raise BadRequest(f"the body is not JSON: {error}", status=400) from error
    except ValueError as error:  # NaN, 1e999, or a whole number of thousands of digits
        mend = "the body holds a number that is none in JSON, or that is too large"
        raise BadRequest(mend, status=400) from error
    except RecursionError as error:
        raise BadRequest("the body is nested too deeply", status=400) from error
    if not isinstance(value, dict):
        raise BadRequest("the body is to be a JSON object")
    fields = cast(Fields, value)
    if b"\\u" in body:
        for loc in _lone_surrogates(fields):
            raise BadRequest("half a surrogate pair is no text", field=loc)
    return fields


async def _read(receive: Receive, most_bytes: int) -> bytes:
    parts = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        part = message.get("body", b"")
        size += len(part)
        if size > most_bytes:
            raise _too_large(most_bytes)
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)


def _check_type(headers: Headers) -> None:
    media_type, *parameters = headers.get("content-type", "").lower().split(";")
    media_type = media_type.strip()
    charset = next((p.split("=", 1)[1] for p in parameters if p.strip().startswith("charset=")), "")
    json_type = media_type == "application/json" or media_type.endswith("+json")
    if not json_type or charset.strip(' "') not in ("", "utf-8", "utf8", "us-ascii"):
        raise BadRequest("send JSON in UTF-8 with Content-Type: application/json", status=415)
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise BadRequest("send the body uncompressed, without Content-Encoding", status=415)


def _too_large(most_bytes: int) -> BadRequest:
    return BadRequest(f"the body is over {most_bytes} bytes (REJOIN_MAX_BODY_BYTES)", status=413)


def _refuse_constant(name: str) -> float:
    raise ValueError(name)


def _finite(text: str) -> float:
    # Infinity could be passed on to nobody: JSON has no way to write it.
    if math.isinf(number := float(text)):
        raise ValueError(text)
    return number


def _lone_surrogates(fields: Fields) -> Iterator[tuple[str | int, ...]]:
    """Find strings that have no UTF-8, keys too."""
    left: list[tuple[tuple[str | int, ...], object]] = [((), fields)]
    while left:
        loc, value = left.pop()
        if isinstance(value, str):
            if not _encodable(value):
                yield loc
        elif isinstance(value, dict):
            yield from (_below(loc, name) for name in value if not _encodable(name))
            left += [(_below(loc, name), member) for name, member in value.items()]
        elif isinstance(value, list):
            left += [(_below(loc, at), member) for at, member in enumerate(value)]


def _below(loc: tuple[str | int, ...], name: str | int) -> tuple[str | int, ...]:
    return (*loc, name) if len(loc) < _MOST_NAMED else loc


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True

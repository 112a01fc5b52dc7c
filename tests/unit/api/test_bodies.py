"""Reading a JSON body."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from starlette.requests import ClientDisconnect
from starlette.types import Receive

from rejoin.api import bodies
from rejoin.shared.errors import BadRequest

JSON = "application/json"
LIMIT = 100


def receiving(*parts: bytes, cut: bool = False) -> tuple[Receive, list[bytes]]:
    """A `receive` of these parts, and those that were not asked for."""
    left = list(parts)

    async def receive() -> dict[str, Any]:
        if cut and not left:
            return {"type": "http.disconnect"}
        part = left.pop(0)
        return {"type": "http.request", "body": part, "more_body": bool(left) or cut}

    return receive, left


async def read(
    *parts: bytes, headers: Sequence[tuple[str, str]] = (("content-type", JSON),), **options: Any
) -> dict[str, object]:
    raw = [(name.encode(), value.encode()) for name, value in headers]
    receive, _ = receiving(*parts, cut=options.pop("cut", False))
    scope = {"type": "http", "headers": raw}
    return await bodies.read_object(scope, receive, most_bytes=LIMIT, **options)


async def refused(*parts: bytes, **options: Any) -> BadRequest:
    with pytest.raises(BadRequest) as raised:
        await read(*parts, **options)
    return raised.value


async def test_parts_are_joined() -> None:
    assert await read(b'{"a": "\xc3', b'\xa9"', b"}") == {"a": "é"}


@pytest.mark.parametrize(
    "media_type",
    [JSON, "Application/JSON", f"{JSON}; charset=utf-8", f'{JSON};charset="UTF-8"', "a/b+json"],
)
async def test_what_is_called_json_is_read(media_type: str) -> None:
    assert await read(b"{}", headers=[("content-type", media_type)]) == {}


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("content-type", "text/plain")],
        [("content-type", "application/jsonp")],
        [("content-type", f"{JSON}; charset=latin-1")],
        [("content-type", JSON), ("content-encoding", "gzip")],
    ],
)
async def test_what_is_not_called_json_is_415(headers: list[tuple[str, str]]) -> None:
    assert (await refused(b"{}", headers=headers)).status == 415


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"{} {}",
        b"{'a': 1}",
        b'{"a": NaN}',
        b'{"a": -Infinity}',
        b'{"a": "\xff"}',
        b'{"a": "\xed\xa0\x80"}',
        b'\xff\xfe{\x00"\x00}\x00',
    ],
)
async def test_malformed_json_is_400(body: bytes) -> None:
    assert (await refused(body)).status == 400


@pytest.mark.parametrize("body", [b'{"a":' * 100_000, b'{"a": 1' + b"1" * 5000 + b"}"])
def test_json_beyond_measure_is_400(body: bytes) -> None:
    with pytest.raises(BadRequest) as raised:
        bodies.parse_object(body)
    assert raised.value.status == 400


@pytest.mark.parametrize("body", [b"[]", b'"a"', b"1", b"null"])
async def test_json_that_is_no_object_is_422(body: bytes) -> None:
    error = await refused(body)
    assert (error.status, error.field) == (422, ())


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (rb'{"a": "\ud800"}', ("a",)),
        (rb'{"a": "\udc00\ud800"}', ("a",)),
        (rb'{"a": [{"b": "\ud800"}]}', ("a", 0, "b")),
        (rb'{"a": {"\ud800": 1}}', ("a", "\ud800")),
        (rb'{"\ud800": 1}', ("\ud800",)),
    ],
)
async def test_half_a_surrogate_pair_is_422_and_named(
    body: bytes, field: tuple[str | int, ...]
) -> None:
    error = await refused(body)
    assert (error.status, error.field) == (422, field)


async def test_a_whole_surrogate_pair_is_a_character() -> None:
    assert await read(rb'{"a": "\ud83d\ude00"}') == {"a": "\N{GRINNING FACE}"}


async def test_a_body_of_the_limit_is_read_and_a_byte_more_is_413() -> None:
    body = b'{"a":"' + b"x" * (LIMIT - 8) + b'"}'
    assert await read(body)
    assert (await refused(body + b" ")).status == 413


async def test_an_announced_length_over_the_limit_is_413_unread() -> None:
    headers = [("content-type", JSON), ("content-length", str(LIMIT + 1))]
    receive, left = receiving(b"{}")
    scope = {"type": "http", "headers": [(n.encode(), v.encode()) for n, v in headers]}
    with pytest.raises(BadRequest) as raised:
        await bodies.read_object(scope, receive, most_bytes=LIMIT)
    assert (raised.value.status, left) == (413, [b"{}"])


async def test_the_rest_of_a_body_over_the_limit_is_not_read() -> None:
    receive, left = receiving(b"x" * LIMIT, b"x", b"rest")
    scope = {"type": "http", "headers": [(b"content-type", JSON.encode())]}
    with pytest.raises(BadRequest) as raised:
        await bodies.read_object(scope, receive, most_bytes=LIMIT)
    assert (raised.value.status, left) == (413, [b"rest"])


async def test_a_client_that_leaves_is_no_bad_request() -> None:
    with pytest.raises(ClientDisconnect):
        await read(b'{"a":', cut=True)


async def test_a_body_that_never_comes_is_408(monkeypatch: pytest.MonkeyPatch) -> None:
    async def receive() -> dict[str, Any]:
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(bodies, "_BODY_SECONDS", 0.01)
    with pytest.raises(BadRequest) as raised:
        await bodies.read_object(
            {"type": "http", "headers": [(b"content-type", JSON.encode())]},
            receive,
            most_bytes=LIMIT,
        )
    assert raised.value.status == 408


async def test_an_optional_body_may_be_missing_or_empty() -> None:
    assert await read(b"", headers=[], optional=True) == {}
    assert await read(b"", headers=[("content-length", "0")], optional=True) == {}
    chunked = [("content-type", JSON), ("transfer-encoding", "chunked")]
    assert await read(b"", headers=chunked, optional=True) == {}
    assert await read(b'{"a":1}', headers=chunked, optional=True) == {"a": 1}


async def test_half_a_pair_is_found_at_any_depth_and_named_by_the_first_levels() -> None:
    error = await refused(b'{"a":' * 9 + rb'"\ud800"' + b"}" * 9)
    assert error.field == ("a",) * 6
    assert error.status == 422

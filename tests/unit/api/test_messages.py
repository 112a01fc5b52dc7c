"""What a POST's headers ask for."""

import pytest
from starlette.datastructures import Headers

from rejoin.api.endpoints.messages import idempotency_key, prefers_stream
from rejoin.shared.errors import BadRequest


@pytest.mark.parametrize(
    "accept",
    [
        "text/event-stream",
        "Text/Event-Stream",
        "text/event-stream, application/json",
        "application/json, text/event-stream;q=1.0",
        "application/json;q=0.5, text/event-stream;q=0.9, */*;q=0.1",
        "text/event-stream; charset=utf-8",
    ],
)
def test_who_names_the_stream_gets_it(accept: str) -> None:
    assert prefers_stream(Headers({"accept": accept}))


@pytest.mark.parametrize(
    "accept",
    [
        "",
        "*/*",
        "text/*",
        "application/json",
        "text/html, */*",
        "text/event-stream;q=0",
        "text/event-stream;q=0.5, application/json",
        "text/event-stream;q=nonsense",
    ],
)
def test_who_does_not_gets_json(accept: str) -> None:
    assert not prefers_stream(Headers({"accept": accept}))


def test_accept_may_come_in_several_headers() -> None:
    raw = [(b"accept", b"application/json;q=0.5"), (b"accept", b"text/event-stream")]
    assert prefers_stream(Headers(raw=raw))


def key(*values: bytes) -> str | None:
    headers = [(b"idempotency-key", value) for value in values]
    return idempotency_key({"type": "http", "headers": headers})


def test_no_header_is_no_key() -> None:
    assert key() is None


@pytest.mark.parametrize("value", [b"a", b"x" * 255, b'"quoted, with; signs"', b"a b"])
def test_printable_ascii_is_a_key(value: bytes) -> None:
    assert key(value) == value.decode()


@pytest.mark.parametrize("values", [[b""], [b"x" * 256], [b"a\tb"], [b"\xc3\xa9"], [b"a", b"a"]])
def test_anything_else_is_400(values: list[bytes]) -> None:
    with pytest.raises(BadRequest) as raised:
        key(*values)
    assert raised.value.status == 400

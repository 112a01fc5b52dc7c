"""Cutting an event stream's body into events."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoin.worker.providers.sse import EventStream, NotAnEventStream

BODY = (
    ": hi\n\nevent: x\ndata: a\ndata:b\ndata:  é\n\n\ndata: []\nid: 1\n\ndata\ndata:\n\ndata: end"
).encode()
EVENTS = ["a\nb\n é".encode(), b"[]", b"", b"end"]


def events(*pieces: bytes) -> list[bytes]:
    stream = EventStream()
    return [event for piece in pieces for event in stream.feed(piece)] + stream.end()


@pytest.mark.parametrize("newline", [b"\n", b"\r", b"\r\n"])
def test_two_cuts_anywhere_change_nothing(newline: bytes) -> None:
    body = BODY.replace(b"\n", newline)
    for first in range(len(body)):
        for second in (first + 1, first + 2, len(body)):
            assert events(body[:first], body[first:second], body[second:]) == EVENTS


def test_a_byte_order_mark_at_the_start_is_none_of_the_first_event() -> None:
    body = b"\xef\xbb\xbfdata: a\n\n\xef\xbb\xbfdata: b\n\ndata: c\n\n"
    for cut in range(len(body)):
        assert events(body[:cut], body[cut:]) == [b"a", b"c"]


def test_an_event_is_given_at_its_blank_line_and_not_later() -> None:
    stream = EventStream()
    assert stream.feed(b"data: a\r\n") == []
    assert stream.feed(b"\r") == [b"a"]
    assert stream.feed(b"\n") == []
    assert stream.feed(b"data: b\r\r") == [b"b"]


@given(st.lists(st.text(), max_size=5), st.sampled_from(["\n", "\r", "\r\n"]))
def test_what_was_written_is_read(texts: list[str], newline: str) -> None:
    lines = [text.replace("\r", "").replace("\n", "") for text in texts]
    body = "".join(f"data: {line}{newline}{newline}" for line in lines)
    raw = body.encode("utf-8", "surrogatepass")
    assert events(raw) == [line.encode("utf-8", "surrogatepass") for line in lines]


@pytest.mark.parametrize("body", [b"<!doctype html>\n", b'{"error":1}\n', b"[1]\n", b"<html>"])
def test_a_page_or_an_object_is_no_event_stream(body: bytes) -> None:
    with pytest.raises(NotAnEventStream):
        events(body)


@pytest.mark.parametrize("body", [b"", b"\n\n\n", b"hello\n", b"event: ping\n\n"])
def test_a_body_without_data_has_no_events(body: bytes) -> None:
    assert events(body) == []

"""The strict reader against a toy server: it takes the contract's bytes and refuses others."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from tests.support.sse_reader import (
    Comment,
    CutOff,
    RetryField,
    open_tail,
    parse_block,
    sse_request,
)

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
FRAMES = [
    b'event: start\ndata: {"attempt":1}\nid: 1-0\n\n',
    'event: text\ndata: {"text":"é\u2028 "}\nid: 1-1\n\n'.encode(),
    b'event: done\ndata: {"finish_reason":"stop"}\nid: 1-2\n\n',
]
BODY = b": hello\nretry: 1000\n\n" + b"".join(FRAMES)


def chunks(body: bytes, size: int) -> list[bytes]:
    parts = [body[n : n + size] for n in range(0, len(body), size)]
    return [b"%x\r\n%s\r\n" % (len(part), part) for part in parts] + [b"0\r\n\r\n"]


@asynccontextmanager
async def toy_server(answer: Sequence[bytes]) -> AsyncIterator[str]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for part in answer:
            writer.write(part)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/x"
    finally:
        server.close()


@pytest.mark.parametrize("size", [1, 7, 50, 1000])
async def test_chunks_of_any_size_give_the_same_events(size: int) -> None:
    head = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
    async with toy_server([head, *chunks(BODY, size)]) as url, open_tail(url) as tail:
        frames = await tail.read_until_end()
    assert [frame.raw for frame in frames] == FRAMES
    assert tail.items[:2] == [Comment("hello"), RetryField(1000)]
    assert (tail.last_event_id, tail.saw_end, bytes(tail.raw)) == ("1-2", True, BODY)


@pytest.mark.parametrize("length", [b"", b"Content-Length: %d\r\n" % len(BODY)])
async def test_a_body_with_a_length_or_with_none_ends(length: bytes) -> None:
    async with toy_server([HEAD + length + b"\r\n", BODY]) as url, open_tail(url) as tail:
        assert len(await tail.read_until_end()) == 3


async def test_a_cut_in_a_frame_leaves_the_whole_frames_before_it() -> None:
    head = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
    cut = len(BODY) - len(FRAMES[2]) - 1
    async with toy_server([head, *chunks(BODY, 5)]) as url, open_tail(url) as tail:
        await tail.read_bytes(cut)
    assert bytes(tail.raw) == BODY[:cut]
    assert tail.last_event_id == "1-0"


async def test_a_stream_that_ends_within_a_frame_is_refused() -> None:
    async with toy_server([HEAD + b"\r\n", BODY[:-1]]) as url, open_tail(url) as tail:
        with pytest.raises(AssertionError, match="ended within a frame"):
            await tail.read_until_end()


async def test_a_connection_that_broke_is_told_from_a_stream_that_ended() -> None:
    head = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
    parts = chunks(BODY, 50)
    for answer in ([head, *parts[:-1]], [head, parts[0][:20]], [head[:-1]]):
        async with toy_server(answer) as url:
            with pytest.raises(CutOff):
                async with open_tail(url) as tail:
                    await tail.read_until_end()


async def test_an_event_after_the_end_is_refused() -> None:
    late = b'event: text\ndata: {"text":""}\nid: 1-3\n\n'
    async with toy_server([HEAD + b"\r\n", BODY + late]) as url, open_tail(url) as tail:
        with pytest.raises(AssertionError, match="follows the end"):
            await tail.read_until_end()


async def test_an_answer_without_a_body_has_ended() -> None:
    answer = b"HTTP/1.1 204 No Content\r\n\r\n"
    async with toy_server([answer]) as url, sse_request("GET", url) as response:
        assert await response.read_until_end() == []
    assert response.status == 204


@pytest.mark.parametrize(
    "block",
    [
        b'event: text\nid: 1-0\ndata: {"text":"a"}\n\n',
        b'event: text\ndata: {"text":"a"}\n\n',
        b'event: text\ndata: {"text":\ndata: "a"}\nid: 1-0\n\n',
        b'event: text\ndata: {"text":"a"\nid: 1-0\n\n',
        b'event: text\ndata: {"text":"\xff"}\nid: 1-0\n\n',
        b'event: text\r\ndata: {"text":"a"}\r\nid: 1-0\n\n',
        b'event: text\ndata: ["a"]\nid: 1-0\n\n',
        b'event: text\ndata: {"text":"a"}\nid: 01-0\n\n',
        b'event: reset\ndata: {"after":null,"reason":"takeover"}\n\n',
        b"retry: soon\n\n",
    ],
)
def test_a_block_of_another_form_is_refused(block: bytes) -> None:
    with pytest.raises((AssertionError, ValueError)):
        parse_block(block)


def test_a_reset_without_an_id_is_taken_when_the_position_was_unknown() -> None:
    block = b'event: reset\ndata: {"after":null,"reason":"position_unknown"}\n\n'
    (frame,) = parse_block(block)
    assert getattr(frame, "id", "none") is None

"""The Python client's tail: every event once and in order, whatever cuts its connections."""

import asyncio
import random
from collections.abc import Sequence

import pytest

from rejoin.client import BadRequest, Client, Event, NotFound, UnexpectedReply, Unreachable
from rejoin.client import tail as tail_module
from rejoin.shared.ids import EventId
from tests.clients.toy_server import (
    Entry,
    Reply,
    Request,
    Toy,
    ToyLog,
    no_content,
    plain_log,
    problem,
    reply,
    stream,
    toy_server,
)
from tests.support.redis_server import free_port

WITHIN = 20
LOG = plain_log("one ", "zwei é\u2028 ", "😀\n")


def shown(events: Sequence[Event]) -> list[Entry]:
    return [Entry(str(e.id) if e.id else None, e.name, e.data) for e in events]


async def read(toy: Toy, after: str | None = None) -> list[Entry]:
    async with Client(toy.url) as client:
        return await read_by(client, after)


async def read_by(client: Client, after: str | None = None) -> list[Entry]:
    async with asyncio.timeout(WITHIN):
        return shown([event async for event in client.tail("m", after)])


@pytest.fixture(autouse=True)
def _no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits are asked for and told (on_drop), and pass at once."""
    sleep = asyncio.sleep
    monkeypatch.setattr("rejoin.client.tail.asyncio.sleep", lambda _: sleep(0))


@pytest.mark.parametrize("chunked", [True, False])
@pytest.mark.parametrize("reset", [True, False])
async def test_a_stream_cut_at_any_byte_is_read_whole(*, chunked: bool, reset: bool) -> None:
    log = ToyLog(LOG)
    whole = log.stream(Request("GET", "/", {}, b""), chunked=chunked)
    # One client for all: each would load the system's certificates anew.
    async with toy_server(log) as toy, Client(toy.url) as client:
        for cut in range(len(whole.raw)):
            toy.requests.clear()
            toy.answers = [whole.cut(cut, reset=reset)]
            assert await read_by(client) == LOG, f"cut after {cut} bytes"
            assert len(toy.requests) <= 2, f"cut after {cut} bytes"


async def test_any_number_of_cuts_gives_the_log_once() -> None:
    chance = random.Random(20261121)
    texts = [chance.choice(["a", "é ", "\n", "😀", "data: \n\nid: 9-9\n\n"]) for _ in range(40)]
    log = ToyLog(plain_log(*texts))

    def cut_somewhere(request: Request) -> Reply:
        whole = log.stream(request, chunked=chance.random() < 0.5)
        if chance.random() < 0.1:
            return problem(502, "Bad Gateway")
        return whole.cut(chance.randint(0, 700), reset=chance.random() < 0.3)

    async with toy_server(cut_somewhere) as toy, Client(toy.url) as client:
        for _ in range(5):
            assert await read_by(client) == log.entries
        assert len(toy.requests) > 25


async def test_it_comes_back_with_the_last_whole_events_id() -> None:
    log = ToyLog(LOG)
    first = stream(log.before + LOG[0].frame + LOG[1].frame + LOG[2].frame[:-1], chunked=False)
    async with toy_server(log, [first]) as toy:
        await read(toy)
    assert [request.last_event_id for request in toy.requests] == [None, "1-1"]


async def test_an_end_without_done_or_failed_means_come_back() -> None:
    log = ToyLog(LOG)
    async with toy_server(log, [stream(log.before + LOG[0].frame)]) as toy:
        assert await read(toy) == LOG


@pytest.mark.parametrize("name", ["done", "failed"])
async def test_nothing_is_asked_after_the_end(name: str) -> None:
    entries = [*LOG[:2], Entry("1-2", name, {})]
    async with toy_server(ToyLog(entries)) as toy:
        assert await read(toy) == entries
    assert len(toy.requests) == 1


async def test_a_position_at_the_end_gives_nothing() -> None:
    async with toy_server(ToyLog(LOG)) as toy:
        assert await read(toy, str(LOG[-1].id)) == []
    assert len(toy.requests) == 1


async def test_a_position_gives_what_is_later() -> None:
    async with toy_server(ToyLog(LOG)) as toy:
        assert await read(toy, "1-2") == LOG[3:]


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
async def test_a_proxys_error_is_waited_out(status: int) -> None:
    page = reply(status, b"<h1>deploying</h1>", content_type="text/html")
    async with toy_server(ToyLog(LOG), [page, page]) as toy:
        assert await read(toy) == LOG


async def test_a_server_that_is_away_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    port, dropped = free_port(), asyncio.Event()

    async def sleep(_: float) -> None:
        dropped.set()
        await asyncio.wait_for(back.wait(), WITHIN)

    back = asyncio.Event()
    monkeypatch.setattr("rejoin.client.tail.asyncio.sleep", sleep)
    async with asyncio.timeout(WITHIN), Client(f"http://127.0.0.1:{port}") as client:
        reading = asyncio.create_task(anext(client.tail("m")))
        await dropped.wait()
        async with toy_server(ToyLog(LOG), port=port):
            back.set()
            assert (await reading).id == EventId(1, 0)


async def test_a_silent_connection_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tail_module, "_TIMEOUT", 0.1)
    log = ToyLog(LOG)
    silent = Reply(stream(log.before + LOG[0].frame, chunked=False).raw, hold=True)
    async with toy_server(log, [silent]) as toy:
        assert await read(toy) == LOG


async def test_the_servers_retry_is_a_wait_at_the_least() -> None:
    log = ToyLog(LOG, before=b"retry: 2500\n\n")
    drops: list[tuple[str, float]] = []
    first = stream(log.before + LOG[0].frame)
    later = problem(503, "later", "retry-after: 7")
    async with toy_server(log, [first, later]) as toy, Client(toy.url) as client:
        tail = client.tail("m", on_drop=lambda reason, seconds: drops.append((reason, seconds)))
        async with asyncio.timeout(WITHIN):
            assert shown([event async for event in tail]) == LOG
    assert [2.5 <= drops[0][1] < 4, 7 <= drops[1][1] < 9] == [True, True], drops
    assert drops[0][0] == "the server ended the connection"
    assert drops[1][0].startswith("503")


async def test_waits_grow_to_a_bound_and_differ() -> None:
    drops: list[float] = []
    refused = problem(502, "Bad Gateway")
    async with toy_server(ToyLog(LOG), [refused] * 12) as toy, Client(toy.url) as client:
        tail = client.tail("m", on_drop=lambda _, seconds: drops.append(seconds))
        async with asyncio.timeout(WITHIN):
            assert shown([event async for event in tail]) == LOG
    assert max(drops) <= 8
    assert drops[0] <= 0.25
    assert min(drops[6:]) >= 4
    assert len(set(drops)) == len(drops), "no chance in them"


async def test_what_was_seen_before_is_left_out() -> None:
    frames = [entry.frame for entry in LOG]
    again = stream(b"".join(frames[:3] + frames[1:4] + frames[2:]))
    async with toy_server(lambda _: again) as toy:
        assert await read(toy) == LOG


async def test_a_missing_event_is_asked_for_again() -> None:
    log = ToyLog(LOG)
    with_a_hole = stream(log.before + LOG[0].frame + LOG[1].frame + LOG[3].frame)
    async with toy_server(log, [with_a_hole]) as toy:
        assert await read(toy) == LOG
    assert [request.last_event_id for request in toy.requests] == [None, "1-1"]


async def test_a_hole_that_stays_is_an_error_not_a_loop() -> None:
    entries = [LOG[0], LOG[1], *LOG[3:]]
    async with toy_server(ToyLog(entries)) as toy:
        with pytest.raises(UnexpectedReply, match="before 1-3"):
            await read(toy)


async def test_an_attempt_that_begins_late_is_a_hole() -> None:
    entries = [LOG[0], Entry("2-1", "text", {"text": "x"}), Entry("2-2", "done", {})]
    async with toy_server(ToyLog(entries)) as toy:
        with pytest.raises(UnexpectedReply, match="before 2-1"):
            await read(toy)


async def test_attempts_may_leave_numbers_out() -> None:
    entries = [LOG[0], Entry("1700000000000-0", "reset", {"after": None}), *LOG[:0]]
    entries.append(Entry("1700000000000-1", "done", {}))
    async with toy_server(ToyLog(entries)) as toy:
        assert await read(toy) == entries


async def test_an_unknown_position_begins_at_the_start_again() -> None:
    unknown = Entry(None, "reset", {"after": None, "reason": "position_unknown"})
    log = ToyLog(LOG)
    first = stream(unknown.frame + LOG[0].frame)
    async with toy_server(log, [first]) as toy:
        assert await read(toy, "7-7") == [unknown, *LOG]
    assert [request.last_event_id for request in toy.requests] == ["7-7", "1-0"]


async def test_cut_right_after_an_unknown_position_it_comes_back_without_one() -> None:
    unknown = Entry(None, "reset", {"after": None, "reason": "position_unknown"})
    async with toy_server(ToyLog(LOG), [stream(unknown.frame)]) as toy:
        assert await read(toy, "7-7") == [unknown, *LOG]
    assert [request.last_event_id for request in toy.requests] == ["7-7", None]


async def test_starting_over_comes_back_without_a_position() -> None:
    async with toy_server(ToyLog(LOG)) as toy, Client(toy.url) as client:
        tail = client.tail("m", "1-1")
        async with asyncio.timeout(WITHIN):
            first = await anext(tail)
            tail.start_over()
            assert shown([first]) + shown([event async for event in tail]) == [LOG[2], *LOG]
    assert [request.last_event_id for request in toy.requests] == ["1-1", None]


async def test_events_of_later_versions_and_other_line_ends_are_taken() -> None:
    entries = [LOG[0], Entry("1-1", "of_tomorrow", {"a": [1]}), Entry("1-2", "done", {})]
    body = b"".join(entry.frame for entry in entries).replace(b"\n", b"\r\n")
    async with toy_server(lambda _: stream(b"tomorrow: x\r\n" + body)) as toy:
        assert await read(toy) == entries


async def test_an_unknown_message_is_not_found() -> None:
    async with toy_server(lambda _: problem(404, "no such message")) as toy:
        with pytest.raises(NotFound, match="no such message"):
            await read(toy)
    assert len(toy.requests) == 1


async def test_a_refused_position_is_a_bad_request() -> None:
    async with toy_server(lambda _: problem(400, "an event id has the form")) as toy:
        with pytest.raises(BadRequest, match="has the form"):
            await read(toy)


async def test_rubbish_as_a_position_is_refused_before_anything_is_sent() -> None:
    async with toy_server(ToyLog(LOG)) as toy:
        with pytest.raises(BadRequest):
            await read(toy, "rubbish")
    assert toy.requests == []


@pytest.mark.parametrize(
    "answer",
    [
        reply(200, b"<h1>Log in</h1>", content_type="text/html"),
        reply(401, b"{}"),
        reply(301, b"", "location: http://elsewhere.example/"),
        stream(b"event: text\ndata: not JSON\nid: 1-0\n\n"),
        stream(b'event: text\ndata: ["a"]\nid: 1-0\n\n'),
        stream(b'event: text\ndata: {"text":"a"}\n\n'),
    ],
)
async def test_what_is_no_tail_is_an_unexpected_reply(answer: Reply) -> None:
    async with toy_server(lambda _: answer) as toy:
        with pytest.raises(UnexpectedReply):
            await read(toy)


async def test_the_patience_ends_without_a_sign_of_the_server() -> None:
    async with Client(f"http://127.0.0.1:{free_port()}") as client:
        with pytest.raises(Unreachable, match=r"for 0\.5 s"):
            async with asyncio.timeout(WITHIN):
                await anext(client.tail("m", patience_seconds=0.5))


async def test_leaving_early_lets_go_of_the_connection() -> None:
    gone = asyncio.Event()
    held = Reply(stream(LOG[0].frame, chunked=False).raw, hold=True)

    class Watched(Toy):
        async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await Toy.serve(self, reader, writer)
            gone.set()

    toy = Watched(lambda _: held)
    server = await asyncio.start_server(toy.serve, "127.0.0.1", 0)
    async with server, asyncio.timeout(WITHIN):
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with Client(url) as client, client.tail("m") as tail:
            assert (await anext(tail)).name == "start"
            await tail.aclose()
            await gone.wait()
            with pytest.raises(StopAsyncIteration):
                await anext(tail)


async def test_more_than_a_hundred_tails_of_one_client_go_on_side_by_side() -> None:
    held = Reply(stream(LOG[0].frame, chunked=False).raw, hold=True)
    async with (
        toy_server(lambda _: held) as toy,
        asyncio.timeout(WITHIN),
        Client(toy.url) as client,
    ):
        tails = [client.tail(f"m{n}") for n in range(120)]
        events = await asyncio.gather(*(anext(tail) for tail in tails))
        assert {event.name for event in events} == {"start"}
        await asyncio.gather(*(tail.aclose() for tail in tails))


async def test_a_log_that_ended_meanwhile_ends_the_tail() -> None:
    cut = stream(b"".join(entry.frame for entry in LOG[:2]))
    async with toy_server(lambda _: no_content(), [cut]) as toy:
        assert await read(toy) == LOG[:2]

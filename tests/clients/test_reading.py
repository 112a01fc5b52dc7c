"""Reading a message: what each event adds, and what a `reset` takes back."""

import asyncio
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rejoin.client import Client, Message, UnexpectedReply
from rejoin.client.reading import changes
from tests.clients.toy_server import Entry, Reply, Request, ToyLog, plain_log, stream, toy_server

WITHIN = 20


def text(event_id: str, said: str) -> Entry:
    return Entry(event_id, "text", {"text": said})


def reset(event_id: str, after: str | None) -> Entry:
    return Entry(event_id, "reset", {"after": after, "reason": "worker_lost"})


START = Entry("1-0", "start", {})
DONE = Entry("2-2", "done", {"finish_reason": "stop"})


@pytest.fixture(autouse=True)
def _no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    sleep = asyncio.sleep
    monkeypatch.setattr("rejoin.client.tail.asyncio.sleep", lambda _: sleep(0))


async def read(log: ToyLog, after: str | None = None) -> tuple[list[tuple[str, str, bool]], str]:
    """Each change as event's name, added text, taken back; and the text at the end."""
    message, seen = Message(), []
    async with toy_server(log) as toy, Client(toy.url) as client, asyncio.timeout(WITHIN):
        async for change in changes(client.tail("m", after), message):
            seen.append((change.event.name, change.added, change.taken_back))  # noqa: PERF401
    return seen, message.text


async def test_texts_are_added() -> None:
    seen, whole = await read(ToyLog(plain_log("a ", "b")))
    assert [added for name, added, _ in seen if name == "text"] == ["a ", "b"]
    assert whole == "a b"


async def test_a_reset_takes_back_what_is_later() -> None:
    log = ToyLog([START, text("1-1", "lost"), reset("2-0", None), text("2-1", "kept"), DONE])
    seen, whole = await read(log)
    assert [name for name, _, taken_back in seen if taken_back] == ["reset"]
    assert whole == "kept"


async def test_a_reset_that_only_marks_an_attempt_takes_nothing_back() -> None:
    log = ToyLog([START, text("1-1", "a "), reset("2-0", "1-1"), text("2-1", "b"), DONE])
    seen, whole = await read(log)
    assert not any(taken_back for _, _, taken_back in seen)
    assert whole == "a b"


async def test_a_reader_with_a_gap_begins_at_the_start_again() -> None:
    entries = [START, text("1-1", "a "), text("1-2", "lost"), reset("2-0", "1-1")]
    log = ToyLog([*entries, text("2-1", "b"), DONE])
    seen, whole = await read(log, after="1-1")
    assert [name for name, _, _ in seen][:3] == ["text", "reset", "start"]
    assert [taken_back for _, _, taken_back in seen][:4] == [False, True, False, False]
    assert whole == "a b"


async def test_a_gap_in_the_log_itself_is_an_error_not_a_loop() -> None:
    entries = [START, text("1-1", "a "), reset("2-0", None), reset("3-0", "1-1")]
    log = ToyLog([*entries, Entry("3-1", "done", {"finish_reason": "stop"})])
    with pytest.raises(UnexpectedReply, match="lacks the event that 3-0 goes back to"):
        await read(log)


async def test_an_unknown_position_takes_everything_back() -> None:
    unknown = Entry(None, "reset", {"after": None, "reason": "position_unknown"})
    log = ToyLog(plain_log("x"))
    message = Message()
    first = stream(log.before + b"".join(entry.frame for entry in plain_log("a", "b")[:3]))
    again = stream(b"".join(entry.frame for entry in [unknown, *log.entries]))
    async with toy_server(log, [first, again]) as toy, Client(toy.url) as client:
        async with asyncio.timeout(WITHIN):
            seen = [change async for change in changes(client.tail("m"), message)]
    assert [change.event.name for change in seen if change.taken_back] == ["reset"]
    assert message.text == "x"


@st.composite
def logs(draw: st.DrawFn) -> list[Entry]:
    """A log of some attempts, each after the first beginning with a `reset` to a kept event."""
    entries, kept = [START], [START]
    for attempt in range(1, draw(st.integers(2, 4))):
        sequence = 1
        if attempt > 1:
            after = draw(st.sampled_from([None, *(entry.id for entry in kept)]))
            entries.append(reset(f"{attempt}-0", after))
            ids = [entry.id for entry in kept]
            kept = [START] if after is None else kept[: ids.index(after) + 1]
            kept.append(entries[-1])
        for said in draw(st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=4)):
            entries.append(text(f"{attempt}-{sequence}", said))
            kept.append(entries[-1])
            sequence += 1
        last = (attempt, sequence)
    return [*entries, Entry(f"{last[0]}-{last[1]}", "done", {})]


def cut(log: ToyLog, at: int, request: Request) -> Reply:
    """What a log answers, cut off after so many bytes."""
    return log(request).cut(at)


@settings(max_examples=60, deadline=None)
@given(log=logs(), cuts=st.lists(st.integers(0, 900), max_size=4), begin=st.integers(0, 9))
async def test_any_log_read_over_any_cuts_from_anywhere_gives_the_text_that_stands(
    log: list[Entry], cuts: list[int], begin: int
) -> None:
    toy_log, message, shown = ToyLog(log), Message(), ""
    after = log[begin].id if 0 < begin < len(log) - 1 else None
    async with toy_server(toy_log) as toy, Client(toy.url) as client:
        toy.answers = [partial(cut, toy_log, at) for at in cuts]
        async with asyncio.timeout(WITHIN):
            async for change in changes(client.tail("m", after), message):
                shown = (message.text if change.taken_back else shown) + change.added
    standing = _standing(log)
    assert shown == message.text
    assert standing.endswith(shown)
    if after is None:
        assert shown == standing


def _standing(log: list[Entry]) -> str:
    kept: list[Entry] = []
    for entry in log:
        if entry.name == "reset":
            after = entry.data["after"]
            kept = [k for k in kept if k.name == "start"] if after is None else _to(kept, after)
        kept.append(entry)
    return "".join(str(entry.data["text"]) for entry in kept if entry.name == "text")


def _to(kept: list[Entry], after: object) -> list[Entry]:
    return kept[: [entry.id for entry in kept].index(str(after)) + 1]

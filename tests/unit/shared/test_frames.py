"""A frame is one SSE event: data before id, and every text comes back from it."""

import json

from hypothesis import given
from hypothesis import strategies as st

from rejoin.shared.events import (
    Done,
    Event,
    Failed,
    FailureCode,
    FinishReason,
    Reasoning,
    Reset,
    Start,
    Text,
    Usage,
)
from rejoin.shared.frames import Frame, encode, id_of, is_end, split
from rejoin.shared.ids import EventId

texts = st.text(st.characters(exclude_categories=["Cs"]))
ids = st.builds(EventId, st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
# What looks like the parts of a frame must not be taken for them.
tricky = st.lists(
    st.sampled_from(["\n", "\r", "\n\n", "id: ", "data: ", "event: done", "1-0", ":", "\\n", '"'])
).map("".join)


def fields_of(frame: bytes) -> list[tuple[str, str]]:
    """Read one SSE event as a client does: its fields in their order."""
    text = frame.decode("utf-8")
    assert text.endswith("\n\n")
    lines = text[:-2].split("\n")
    return [(name, value.removeprefix(" ")) for name, _, value in (x.partition(":") for x in lines)]


@given(ids, texts | tricky)
def test_any_text_comes_back_from_its_frame(event_id: EventId, text: str) -> None:
    for event in (Text(text), Reasoning(text)):
        frame = encode(event_id, event)
        name, data = split(frame)
        assert (name.decode(), json.loads(data)) == (event.name, {"text": text})
        assert id_of(frame) == bytes(event_id)
        assert Frame(event_id, frame).name == event.name
        assert json.loads(Frame(event_id, frame).json) == {"text": text}


@given(ids, texts | tricky)
def test_a_client_reads_event_data_and_id_in_this_order(event_id: EventId, text: str) -> None:
    failed = Failed(FailureCode.INTERNAL, text, retryable=False)
    for event in (Text(text), Reset(None, 1, text, text), failed):
        read = fields_of(encode(event_id, event))
        assert [name for name, _ in read] == ["event", "data", "id"]
        assert read[0][1] == event.name
        assert read[1][1] == event.json()
        assert read[2][1] == str(event_id)


@given(ids, texts | tricky)
def test_a_frame_cut_anywhere_is_no_whole_event(event_id: EventId, text: str) -> None:
    frame = encode(event_id, Text(text))
    for at in range(len(frame)):
        assert b"\n\n" not in frame[:at]


def test_the_frames_bytes_are_these() -> None:
    assert encode(EventId(2, 7), Text("né\n")) == (
        'event: text\ndata: {"text":"né\\n"}\nid: 2-7\n\n'.encode()
    )


def test_only_done_and_failed_are_ends() -> None:
    at = EventId(1, 0)
    ends: list[Event] = [
        Done(FinishReason.STOP, 0),
        Failed(FailureCode.INTERNAL, "", retryable=False),
    ]
    others: list[Event] = [
        Start("m", "c", "x", 1, ""),
        Reset(None, 2, "x", "done"),
        Text("event: done\n"),
        Reasoning("failed"),
        Usage(),
    ]
    assert all(is_end(encode(at, event)) for event in ends)
    assert not any(is_end(encode(at, event)) for event in others)


def test_bytes_without_an_id_have_none() -> None:
    assert id_of(b"") == b""
    assert id_of(b": comment\n\n") == b""
    assert id_of(b'event: reset\ndata: {"after":null}\n\n') == b""


def test_half_a_frame_has_no_id_yet() -> None:
    frame = encode(EventId(12, 34), Text("a"))
    assert [id_of(frame[:at]) for at in range(len(frame))] == [b""] * len(frame)


def test_a_private_part_is_not_in_the_clients_bytes() -> None:
    frame = Frame(EventId(1, 0), encode(EventId(1, 0), Text("seen")), b'{"secret":1}')
    assert b"secret" not in frame.data
    assert frame.name == "text"

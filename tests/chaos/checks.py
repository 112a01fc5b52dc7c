"""What must be so when everything has settled: logs, tails and texts against each other."""

from collections.abc import Iterator, Sequence
from typing import Final

from tests.chaos.senders import Message
from tests.chaos.tails import Tail
from tests.support.caller import assert_whole_log, kept_frames, visible_text
from tests.support.sse_reader import SseFrame, parse_block

_AROUND: Final = 3


def parse_log(raws: Sequence[bytes]) -> list[SseFrame]:
    """A log's frames, as a client reads them."""
    frames = [item for raw in raws for item in parse_block(raw)]
    return [frame for frame in frames if isinstance(frame, SseFrame)]


def wrong_log(message: Message, frames: Sequence[SseFrame]) -> Iterator[str]:
    """Say what is wrong with a message's log by itself."""
    if not frames:
        yield f"{message}: its log is empty"
        return
    try:
        assert_whole_log(frames)
        text = visible_text(frames)
    except AssertionError as error:
        yield f"{message}: {error}; it ends {_ids(frames[-_AROUND:])}"
        return
    end = frames[-1]
    if [frame.event for frame in frames].count("usage") != 1 or frames[-2].event != "usage":
        yield f"{message}: no `usage` directly before the end: {_ids(frames[-_AROUND:])}"
    yield from _wrong_end(message, end)
    yield from _wrong_text(message, end, text)


def _wrong_end(message: Message, end: SseFrame) -> Iterator[str]:
    cancelled = end.data.get("finish_reason") == "cancelled"
    if cancelled != (message.cancel_status == 202):
        yield f"{message}: a cancel was answered {message.cancel_status}, the end is {end.data}"
    elif end.event == "failed" and end.data["code"] != message.plan.fails_with:
        yield f"{message}: failed with {end.data}, expected {message.plan.fails_with}"
    elif end.event == "done" and not cancelled and message.plan.fails_with is not None:
        yield f"{message}: ended {end.data}, expected {message.plan.fails_with}"
    elif end.event == "done" and not cancelled and end.data["finish_reason"] != "stop":
        yield f"{message}: ended {end.data}, expected stop"


def _wrong_text(message: Message, end: SseFrame, text: str) -> Iterator[str]:
    expected = message.plan.text
    whole = end.event == "done" and end.data["finish_reason"] != "cancelled"
    if (text != expected) if whole else not expected.startswith(text):
        at = next((n for n, (a, b) in enumerate(zip(text, expected, strict=False)) if a != b), None)
        at = min(len(text), len(expected)) if at is None else at
        yield (
            f"{message}: {len(text)} characters of text, {len(expected)} expected; they part at"
            f" {at}: {text[max(0, at - 20) : at + 20]!r}, {expected[max(0, at - 20) : at + 20]!r}"
        )
    if end.event == "done" and end.data["text_chars"] != len(text):
        yield f"{message}: text_chars {end.data['text_chars']}, it has {len(text)}"


def wrong_reasoning(message: Message, frames: Sequence[SseFrame]) -> Iterator[str]:
    """Say whether thinking text that stands is not what the provider sent."""
    try:
        kept = kept_frames(frames)
    except AssertionError:  # which `wrong_log` tells of
        return
    told = "".join(frame.data["text"] for frame in kept if frame.event == "reasoning")
    if frames and frames[-1].data.get("finish_reason") == "stop" and told != message.plan.reasoning:
        yield f"{message}: reasoning {told!r}, expected {message.plan.reasoning!r}"


def wrong_tail(tail: Tail, frames: Sequence[SseFrame]) -> Iterator[str]:
    """Say where a tail's events are not the log's, from where the tail began."""
    ids = [frame.id for frame in frames]
    start = 0
    if tail.began_after is not None:
        if tail.began_after not in ids:
            yield f"{tail}: the snapshot's last_event_id {tail.began_after} is not in the log"
            return
        start = ids.index(tail.began_after) + 1
    if tail.snapshot_text is not None and tail.snapshot_text != visible_text(frames[:start]):
        yield f"{tail}: the snapshot's text is not that of the log up to {tail.began_after}"
    expected = [frame.raw for frame in frames[start:]]
    if tail.raws != expected:
        pairs = zip(tail.raws, expected, strict=False)
        at = next((n for n, (a, b) in enumerate(pairs) if a != b), None)
        at = min(len(tail.raws), len(expected)) if at is None else at
        few = slice(max(0, at - _AROUND), at + _AROUND)
        yield (
            f"{tail}: {len(tail.raws)} events, the log has {len(expected)}; they part at {at}:"
            f" it has {_ids(parse_log(tail.raws[few]))}, the log {_ids(parse_log(expected[few]))}"
        )


def _ids(frames: Sequence[SseFrame]) -> str:
    return " ".join(f"{frame.id}:{frame.event}" for frame in frames)

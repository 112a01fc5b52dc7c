"""What a writer holds for a log that loses events: the beginning in common, and what follows it."""

import pytest

from rejoin.shared.events import FinishReason, Step, Text
from rejoin.shared.frames import Frame, encode
from rejoin.shared.ids import EventId
from rejoin.worker.story import Story


def frames(*words: str, attempt: int = 1, first: int = 1) -> list[Frame]:
    ids = [EventId(attempt, sequence) for sequence in range(first, first + len(words))]
    return [Frame(at, encode(at, Text(word))) for at, word in zip(ids, words, strict=True)]


def test_the_beginning_in_common_is_that_of_the_same_events_under_the_same_ids() -> None:
    held = frames("a", "b", "c")
    assert [Story(held).common_with(held[:n]) for n in range(4)] == [0, 1, 2, 3]
    assert Story(held).common_with([held[0], *frames("b", attempt=2)]) == 1
    assert Story(held).common_with(frames("other")) == 0


def test_what_follows_is_numbered_anew_with_its_notes_and_held_so() -> None:
    one, two, three = frames("a", "b", "c")
    story = Story([one, two._replace(private=b"{}"), three])
    again, has_step = story.again(1, 7, 1)
    assert again == [
        frames("b", attempt=7)[0]._replace(private=b"{}"),
        *frames("c", attempt=7, first=2),
    ]
    assert not has_step
    assert story.common_with([one, *again]) == 3


def test_a_log_that_goes_back_beyond_the_second_telling_is_known_by_the_first() -> None:
    held = frames("a", "b", "c")
    story = Story(held)
    again, _ = story.again(1, 7, 1)
    assert story.common_with(held) == 3
    assert story.common_with([held[0], again[0], held[2]]) == 3
    story.cut(2)
    assert story.common_with(held) == 2


def test_a_step_among_what_follows_is_told_of() -> None:
    at = EventId(1, 2)
    story = Story([*frames("a"), Frame(at, encode(at, Step(1, FinishReason.STOP)))])
    assert story.again(0, 2, 1)[1]
    assert not Story(frames("a")).again(0, 2, 1)[1]


def test_what_is_cut_is_held_no_more() -> None:
    held = frames("a", "b", "c")
    story = Story(held)
    story.cut(1)
    assert (len(story), story.common_with(held)) == (1, 1)


def test_the_oldest_are_forgotten_and_only_a_log_that_has_them_is_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    held = frames(*map(str, range(100)))
    monkeypatch.setattr("rejoin.worker.story.MOST_BYTES", 20 * len(held[0].data))
    story = Story(held)
    assert len(story) == 100
    assert not story.is_whole
    assert story.common_with(held) == 100
    assert story.common_with(held[:99]) == 99
    assert story.common_with(held[:50]) is None
    assert story.common_with([*frames(*map(str, range(99)), attempt=2), held[-1]]) is None
    assert [frame.data for frame in story.again(99, 2, 1)[0]] == [frames("99", attempt=2)[0].data]
    story.cut(3)
    assert story.common_with(held) is None

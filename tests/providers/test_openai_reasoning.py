"""Reasoning details, put together as they are sent back."""

import pytest

from rejoin.worker.providers.base import ThinkingChunk
from rejoin.worker.providers.openai_reasoning import ReasoningDetails

Detail = dict[str, object]


def text(said: str, **members: object) -> Detail:
    return {"type": "reasoning.text", "text": said, **members}


def put_together(*details: object) -> tuple[str, list[object]]:
    """What they say in all, and the blocks that they are."""
    gathered = ReasoningDetails()
    said = "".join(gathered.feed([detail]) for detail in details)
    return said, [dict(chunk.block) for chunk in gathered.end()]


def test_pieces_of_a_text_are_one_and_the_signature_is_kept() -> None:
    signed = {"type": "reasoning.text", "text": "", "signature": "s", "index": 0}
    pieces = [text("So ", signature=None, index=0), text("it is.", index=0), signed]
    assert put_together(*pieces) == (
        "So it is.",
        [text("So it is.", signature="s", index=0)],
    )


@pytest.mark.parametrize(
    "second",
    [
        text("b", index=1),
        {"type": "reasoning.summary", "summary": "b", "index": 0},
        {"type": "reasoning.encrypted", "data": "b", "index": 0},
    ],
)
def test_what_is_another_block_stays_one(second: Detail) -> None:
    first = text("a", index=0)
    assert put_together(first, second)[1] == [first, second]


def test_a_signature_ends_a_block() -> None:
    first, second = text("a", signature="s"), text("b")
    assert put_together(first, second)[1] == [first, second]


def test_encrypted_blocks_are_never_joined_and_say_nothing() -> None:
    blocks = [{"type": "reasoning.encrypted", "data": data} for data in "ab"]
    assert put_together(*blocks) == ("", blocks)


def test_a_summary_comes_in_pieces_too() -> None:
    pieces = [{"type": "reasoning.summary", "summary": said, "id": "r"} for said in ("a", "b")]
    whole = {"type": "reasoning.summary", "summary": "ab", "id": "r"}
    assert put_together(*pieces) == ("ab", [whole])


@pytest.mark.parametrize("details", [None, "x", {"type": "x"}, [None], [{}], []])
def test_what_is_no_detail_says_nothing(details: object) -> None:
    gathered = ReasoningDetails()
    assert (gathered.feed(details), gathered.end()) == ("", [])


def test_a_kind_of_a_later_version_is_kept_as_it_is() -> None:
    odd: Detail = {"type": ["new"], "x": 1}
    assert put_together(odd, odd) == ("", [odd, odd])
    assert ReasoningDetails().end() == list[ThinkingChunk]()

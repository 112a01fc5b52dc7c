"""Text cut anywhere, between the halves of a surrogate pair too, comes out whole and valid."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoin.worker.whole_text import WholeText

REPLACED = "\ufffd"


def whole(text: str) -> str:
    """What the text is once every pair is joined and every lone half replaced, said by itself."""
    made, at = [], 0
    while at < len(text):
        high = "\ud800" <= text[at] <= "\udbff"
        if high and at + 1 < len(text) and "\udc00" <= text[at + 1] <= "\udfff":
            point = ((ord(text[at]) - 0xD800) << 10) + (ord(text[at + 1]) - 0xDC00) + 0x10000
            made.append(chr(point))
            at += 2
        else:
            made.append(REPLACED if "\ud800" <= text[at] <= "\udfff" else text[at])
            at += 1
    return "".join(made)


surrogates = st.characters(categories=["Cs"])
halves = st.sampled_from("\ud83d\ude00\udbff\udfff\ud800\udc00")
strings = st.text(st.one_of(halves, surrogates, st.characters()), max_size=30)


@given(st.lists(strings, max_size=12))
def test_any_split_of_any_text_joins_to_the_whole(chunks: list[str]) -> None:
    text = WholeText()
    fed = [text.feed(chunk) for chunk in chunks]
    joined = "".join(fed) + text.end()
    assert joined == whole("".join(chunks))
    for piece in fed:
        piece.encode("utf-8")  # each one by itself is valid


@given(st.text(), st.data())
def test_valid_text_is_passed_on_at_once_and_unchanged(text: str, data: st.DataObject) -> None:
    text = "".join(c for c in text if not "\ud800" <= c <= "\udfff")
    at = data.draw(st.integers(0, len(text)))
    passing = WholeText()
    assert passing.feed(text[:at]) == text[:at]
    assert passing.feed(text[at:]) == text[at:]
    assert passing.end() == ""


@pytest.mark.parametrize(
    ("chunks", "out", "rest"),
    [
        (["\ud83d", "\ude00"], ["", "😀"], ""),
        (["a\ud83d", "\ude00b"], ["a", "😀b"], ""),
        (["\ud83d", "", "\ude00"], ["", "", "😀"], ""),
        (["\ud83d"], [""], REPLACED),
        (["\ud83d", "a"], ["", REPLACED + "a"], ""),
        (["\ude00"], [REPLACED], ""),
        (["\ud83d", "\ud83d", "\ude00"], ["", REPLACED, "😀"], ""),
        (["\ude00\ud83d"], [REPLACED], REPLACED),
        (["\ud83d\ude00"], ["😀"], ""),
    ],
)
def test_a_half_waits_for_its_other_half(chunks: list[str], out: list[str], rest: str) -> None:
    text = WholeText()
    assert [text.feed(chunk) for chunk in chunks] == out
    assert text.end() == rest
    assert text.end() == ""

"""What a model gives is joined to the text that it goes on with: no repeat and no hole."""

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoin.worker.overlap import Seam, last_words


def joined(partial: str, pieces: Iterable[str], *, repeats: bool) -> str:
    """The whole text, of an answer in these pieces."""
    seam = Seam(partial, repeats=repeats)
    given_out = [seam.feed(piece) for piece in pieces]
    return partial + "".join(given_out) + seam.end()


words = st.lists(
    st.sampled_from(
        ["a", "the", "la", "naïve", "日本語", "🙂", "x-y", "--", "  ", " ", "\n", "\n\n"]
    ),
    min_size=1,
    max_size=30,
).map("".join)
sizes = st.integers(1, 7)


def cut_up(text: str, size: int) -> list[str]:
    return [text[at : at + size] for at in range(0, len(text), size)]


@given(words, st.integers(1, 60), sizes)
def test_a_prefix_cut_anywhere_is_gone_on_with(text: str, cut: int, size: int) -> None:
    partial = text[:cut]
    rest = text[len(partial.rstrip()) :]
    assert joined(partial, cut_up(rest, size), repeats=False) == text


@given(words, st.integers(1, 60), sizes, st.sampled_from(["", " ", "\n\n"]))
def test_who_repeats_the_last_words_as_told_is_joined_exactly(
    text: str, cut: int, size: int, lead: str
) -> None:
    partial = text[:cut]
    if not partial.strip():
        return
    body = partial.rstrip()
    answer = lead + last_words(partial) + text[len(body) :]
    assert joined(partial, cut_up(answer, size), repeats=True) == text


FOX = "The quick brown fox jumps over the lazy dog, and "


@pytest.mark.parametrize("repeated", [0, 1, 2, 3, 5, 8, 10])
@pytest.mark.parametrize("size", [1, 3, 1000])
def test_some_of_the_last_words_repeated_come_once(repeated: int, size: int) -> None:
    again = "".join(f"{word} " for word in FOX.split()[10 - repeated :])
    assert joined(FOX, cut_up(again + "then sleeps", size), repeats=True) == FOX + "then sleeps"


def test_a_cut_within_a_word_is_joined_within_it() -> None:
    assert joined("The quick bro", ["quick brown ", "fox"], repeats=True) == "The quick brown fox"
    assert joined("The quick bro", ["brown fox"], repeats=True) == "The quick brown fox"
    assert joined("The quick bro", ["wn fox"], repeats=True) == "The quick brown fox"
    assert joined("unbelievab", ["believable"], repeats=True) == "unbelievable"


def test_all_of_it_repeated_comes_once_be_it_one_character() -> None:
    assert joined("I", ["I am"], repeats=True) == "I am"
    assert joined("日", ["日本"], repeats=True) == "日本"
    long = FOX * 50
    assert joined(long, cut_up(long + "so on", 9), repeats=True) == long + "so on"


@pytest.mark.parametrize("dots", ["...", "…", "... ", "… "])
@pytest.mark.parametrize("size", [1, 2, 1000])
def test_dots_before_the_last_words_go_with_them(dots: str, size: int) -> None:
    answer = cut_up(f"{dots}over the lazy dog, and sleeps", size)
    told = last_words(FOX)
    assert joined(FOX, cut_up(f"{dots}{told} sleeps", size), repeats=True) == FOX + "sleeps"
    assert joined(FOX, answer, repeats=True) == FOX + "".join(answer)
    assert joined("Well", [dots, "no"], repeats=True) == f"Well{dots}no"


CODE = "Here:\n\n```py\nif some:\n    x = 1\n"


@pytest.mark.parametrize("again", [" ", "\n", "\r\n", "\t", "  \n"])
@pytest.mark.parametrize("lead", ["", "\n", "… "])
@pytest.mark.parametrize("size", [1, 4, 1000])
def test_last_words_in_other_white_space_come_once(again: str, lead: str, size: int) -> None:
    told = again.join(last_words(CODE).split())
    answer = f"{lead}{told}\nelse:\n    pass"
    assert joined(CODE, cut_up(answer, size), repeats=True) == CODE + "else:\n    pass"


def test_a_few_letters_in_other_white_space_are_no_repetition() -> None:
    assert joined("- a\n- b", ["- a - b, c"], repeats=True) == "- a\n- b- a - b, c"
    assert joined(CODE, ["Here: so"], repeats=True) == CODE + "Here: so"
    assert joined(CODE, ["Here: ```py"], repeats=True) == CODE + "Here: ```py"


def test_a_single_letter_that_happens_to_follow_is_no_repetition() -> None:
    assert joined("Plan a", ["a gain"], repeats=True) == "Plan aa gain"


def test_a_repetition_in_the_text_itself_stays() -> None:
    partial = "row, row, row, row, row, row, row, row, row, row, row, row, row, row, row, row, "
    rest = "row, row your boat"
    assert joined(partial, [last_words(partial), " ", rest], repeats=True) == partial + rest
    assert joined(partial, [rest], repeats=False) == partial + rest


def test_nothing_is_held_back_longer_than_it_takes_to_tell() -> None:
    seam = Seam("one two three", repeats=True)
    assert seam.feed("thr") == ""
    assert seam.feed("ong") == "throng"
    assert seam.closed
    seam = Seam("one two three", repeats=True)
    assert [seam.feed("one two "), seam.feed("three"), seam.feed(" four")] == ["", "", " four"]


def test_what_is_held_back_at_the_end_goes_out_unless_it_is_a_repetition() -> None:
    assert joined("one two three", ["two"], repeats=True) == "one two threetwo"
    assert joined("one two three", [" \n"], repeats=True) == "one two three \n"
    assert joined("one two three", ["three"], repeats=True) == "one two three"
    assert joined("one two three", [], repeats=True) == "one two three"


def test_white_space_that_is_there_already_does_not_come_twice() -> None:
    assert joined("one:\n", ["\n", "\ntwo"], repeats=False) == "one:\n\ntwo"
    assert joined("one ", [" two"], repeats=False) == "one two"
    assert joined("one ", ["two"], repeats=False) == "one two"
    assert joined("one ", ["\ntwo"], repeats=False) == "one \ntwo"
    assert joined("one \n", [" two"], repeats=False) == "one \ntwo"


def test_who_is_shown_the_white_space_and_repeats_nothing_goes_on_behind_it() -> None:
    assert joined("one:\n", ["\ntwo"], repeats=True) == "one:\n\ntwo"
    assert joined("one:\n", ["one:\n", "\ntwo"], repeats=True) == "one:\n\ntwo"


def test_what_was_left_out_is_counted() -> None:
    seam = Seam("one two three ", repeats=True)
    seam.feed("two thr")
    assert seam.dropped == 7
    assert seam.feed("ee four") == "four"
    assert seam.dropped == len("two three ")


@pytest.mark.parametrize(
    ("partial", "told"),
    [
        ("one two ", "one two"),
        ("x" * 100, "x" * 60),
        ("word " * 30, ("word " * 12).rstrip()),
        ("# Title\n\nThe first sentence", "The first sentence"),
        ("- one\n- two", "- one\n- two"),
        ("日本語" * 30, "日本語" * 20),
    ],
)
def test_a_model_is_told_the_last_words(partial: str, told: str) -> None:
    assert last_words(partial) == told


def test_a_long_text_is_looked_at_in_no_time() -> None:
    partial = "la " * 100_000
    seam = Seam(partial, repeats=True)
    assert seam.feed("something else") == "something else"

"""What a docstring says of a function and of its arguments, one by one."""

import pytest

from rejoin.worker.tools.docstring import described


@pytest.mark.parametrize("nothing", [None, "", "\n  \n"])
def test_no_docstring_says_nothing(nothing: str | None) -> None:
    assert described(nothing) == ("", {})


def test_arguments_and_what_is_raised_are_no_part_of_the_description() -> None:
    text = """Buy tea.

        At the corner shop.

        Args:
            kind: Which one.

        Raises:
            ValueError: none is left.

        Returns:
            The price.
        """
    assert described(text) == (
        "Buy tea.\n\nAt the corner shop.\n\nReturns:\n    The price.",
        {"kind": "Which one."},
    )


def test_an_argument_goes_on_over_lines_that_look_like_others() -> None:
    text = """Buy tea.

        Args:
            kind (str, optional): Which one,
                for example: green,
                or: black.
            grams: How much.
        """
    assert described(text)[1] == {
        "kind": "Which one, for example: green, or: black.",
        "grams": "How much.",
    }


def test_a_line_that_is_no_argument_at_the_start_is_passed_over() -> None:
    assert described("Buy.\n\nArgs:\n    whatever comes\n    kind: Which.") == (
        "Buy.",
        {"kind": "Which."},
    )

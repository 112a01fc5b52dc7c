"""What stands in the history for images and files that a later message's model cannot take."""

import pytest

from rejoin.shared.content import FilePart, ImagePart, TextPart
from rejoin.shared.part_support import without_lacks

IMAGE = ImagePart("https://a.example/b.png")
PICTURE = ImagePart("data:image/png;base64,YQ==")
PDF = FilePart("a.pdf", "data:application/pdf;base64,YQ==")
NOTE = FilePart("a.txt", "data:text/plain;base64,YQ==")


def test_a_note_says_what_was_there_and_why_it_is_not() -> None:
    said = (
        "[an image was here, which cannot be shown: openai/gpt-3.5-turbo takes no images]",
        "[the file a.pdf was here, which cannot be shown: openai/gpt-3.5-turbo takes no files]",
    )
    found = without_lacks((TextPart("look"), IMAGE, PDF, NOTE), "openai/gpt-3.5-turbo")
    assert found == (TextPart("look"), *map(TextPart, said), NOTE)


@pytest.mark.parametrize(("part", "kept"), [(IMAGE, 0), (PDF, 0), (PICTURE, 1), (NOTE, 1)])
def test_ollama_keeps_what_it_has_a_way_to_take(part: ImagePart | FilePart, kept: int) -> None:
    found = without_lacks((part,), "ollama/any")
    assert (found == (part,)) is bool(kept)


def test_our_own_file_is_believed_before_a_list() -> None:
    assert without_lacks((IMAGE,), "openai/gpt-4o-mini", sees=False) == (IMAGE,)


def test_a_string_stays_as_it_is() -> None:
    assert without_lacks("look", "demo/echo") == "look"

"""What a turn says: a string, or a list of parts in the shape of OpenAI's chat API."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, cast


@dataclass(frozen=True, slots=True)
class TextPart:
    """A piece of text."""

    text: str


@dataclass(frozen=True, slots=True)
class ImagePart:
    """An image; `url` is https, passed on and never fetched, or a data URL with base64."""

    url: str


@dataclass(frozen=True, slots=True)
class FilePart:
    """A file; `file_data` is a data URL with base64."""

    filename: str
    file_data: str


Part = TextPart | ImagePart | FilePart
Content = str | tuple[Part, ...]

IMAGE_CHARS: Final = 4_000  # about a thousand tokens, whatever its bytes are


def text_of(content: Content) -> str:
    """The text of it alone, its parts joined by line ends."""
    if isinstance(content, str):
        return content
    return "\n".join(part.text for part in content if isinstance(part, TextPart))


def chars_of(content: Content) -> int:
    """How many characters it counts as where tokens have to be guessed from its length."""
    if isinstance(content, str):
        return len(content)
    return sum(_chars(part) for part in content)


def _chars(part: Part) -> int:
    match part:
        case TextPart():
            return len(part.text)
        case ImagePart():
            return IMAGE_CHARS
        case FilePart():
            return len(part.file_data) * 3 // 4


def encode(content: Content) -> str | list[dict[str, object]]:
    """Return it as JSON has it: a string, or OpenAI's list of parts."""
    return content if isinstance(content, str) else [_encode(part) for part in content]


def decode(value: object) -> Content:
    """Read what `encode` returned.

    Raises:
        ValueError, KeyError, TypeError: it is no such thing.
    """
    if isinstance(value, str):
        return value
    return tuple(_decode(part) for part in cast(Sequence[Mapping[str, object]], value))


def _encode(part: Part) -> dict[str, object]:
    match part:
        case TextPart():
            return {"type": "text", "text": part.text}
        case ImagePart():
            return {"type": "image_url", "image_url": {"url": part.url}}
        case FilePart():
            file = {"filename": part.filename, "file_data": part.file_data}
            return {"type": "file", "file": file}


def _decode(part: Mapping[str, object]) -> Part:
    match part:
        case {"type": "text", "text": str(text)}:
            return TextPart(text)
        case {"type": "image_url", "image_url": {"url": str(url)}}:
            return ImagePart(url)
        case {"type": "file", "file": {"filename": str(name), "file_data": str(data)}}:
            return FilePart(name, data)
    raise ValueError("no content part")

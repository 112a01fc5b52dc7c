"""Content parts as a body has them: text, images and files; what each takes and from whom."""

import binascii
import re
from collections.abc import Mapping
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    TypeAdapter,
    ValidationError,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from rejoin.shared import content

IMAGE_TYPES: Final = ("image/png", "image/jpeg", "image/gif", "image/webp")
FILE_TYPES: Final = ("application/pdf", "text/plain", "text/markdown", "text/csv", "text/html")

_MANY: Final = 1000
_LONGEST_URL: Final = 8192  # of an https URL; signed ones are long
_UTF8: Final = frozenset({"", "charset=utf-8", "charset=us-ascii"})
_PRINTED: Final = re.compile(r"[!-~]+")


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")


def _image_url(url: str) -> str:
    scheme = url[:8].lower()
    if scheme.startswith("data:"):
        return _data_url(url, IMAGE_TYPES, "image")
    if scheme != "https://":
        raise _wrong("an image is an https:// URL, or a data: URL with base64")
    if len(url) > _LONGEST_URL or not _PRINTED.fullmatch(url) or not _has_host(url):
        raise _wrong(f"no https URL: a host, {_LONGEST_URL} characters at most, no white space")
    return url


def _file_data(url: str) -> str:
    if url[:5].lower() != "data:":
        raise _wrong("a file is sent as a data: URL with base64: data:application/pdf;base64,…")
    return _data_url(url, FILE_TYPES, "file")


def _data_url(url: str, types: tuple[str, ...], what: str) -> str:
    """Return the URL as providers read it: the type in lower case, no parameters but base64."""
    head, comma, data = url[len("data:") :].partition(",")
    media_type, *parameters = [piece.strip() for piece in head.lower().split(";")]
    if not comma or parameters[-1:] != ["base64"]:
        raise _wrong(f"a data: URL is written data:{types[0]};base64,…")
    if media_type not in types:
        raise _wrong(f"the {what}'s type is one of {', '.join(types)}")
    if not _UTF8.issuperset(parameters[:-1]):
        raise _wrong("the data: URL has a parameter that no provider takes; text is UTF-8")
    try:
        held = binascii.a2b_base64(data.encode("ascii"), strict_mode=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise _wrong("what follows base64, is not base64, with its padding") from error
    if not held:
        raise _wrong(f"the {what} is empty: it has 0 bytes")
    if media_type.startswith("text/") and not _is_utf8(held):
        raise _wrong("a text file is to be UTF-8")
    return f"data:{media_type};base64,{data}"


def _has_host(url: str) -> bool:
    try:
        return bool(urlsplit(url).hostname)
    except ValueError:
        return False


def _is_utf8(held: bytes) -> bool:
    try:
        held.decode()
    except UnicodeDecodeError:
        return False
    return True


def _file_name(name: str) -> str:
    if not name.isprintable():
        raise _wrong("a file's name has no control characters")
    return name


def _wrong(mend: str) -> PydanticCustomError:
    # Braces in the text would be taken for places to fill in.
    return PydanticCustomError("part", "{mend}", {"mend": mend})


class TextPart(_Strict):
    """A piece of text."""

    type: Literal["text"]
    text: str


class ImageUrl(_Strict):
    """Where an image is."""

    url: Annotated[
        str,
        Field(description="https, never fetched by Rejoin, or data: with base64"),
        AfterValidator(_image_url),
    ]


class ImagePart(_Strict):
    """An image: png, jpeg, gif or webp."""

    type: Literal["image_url"]
    image_url: ImageUrl


class FileData(_Strict):
    """A file's name and bytes."""

    filename: Annotated[str, Field(min_length=1, max_length=255), AfterValidator(_file_name)]
    file_data: Annotated[str, Field(description="data: with base64"), AfterValidator(_file_data)]


class FilePart(_Strict):
    """A file: a PDF, or text."""

    type: Literal["file"]
    file: FileData


_KINDS: Final[Mapping[object, type[TextPart | ImagePart | FilePart]]] = {
    "text": TextPart,
    "image_url": ImagePart,
    "file": FilePart,
}


def _part(value: object) -> TextPart | ImagePart | FilePart:
    # By hand: pydantic's own unions put the name of each kind into `loc`.
    if not isinstance(value, dict):
        raise _wrong('a part is an object: {"type": "text", "text": …}')
    kind = value.get("type")
    if not isinstance(kind, str) or kind not in _KINDS:
        raise wrong_at(("type",), "the type of a part is text, image_url or file", kind)
    return _KINDS[kind].model_validate(value)


_AnyPart = Annotated[
    TextPart | ImagePart | FilePart,
    PlainValidator(_part, json_schema_input_type=TextPart | ImagePart | FilePart),
]
_Parts = Annotated[list[_AnyPart], Field(min_length=1)]
_PARTS: Final[TypeAdapter[list[_AnyPart]]] = TypeAdapter(_Parts)
# Each error costs more than a part: of so many that are wrong the first is told.
_MANY_PARTS: Final[TypeAdapter[list[_AnyPart]]] = TypeAdapter(
    Annotated[list[_AnyPart], Field(fail_fast=True)]
)


def _content(value: object) -> content.Content:
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise _wrong("content is a string, or a list of parts")
    parts = _PARTS if len(value) <= _MANY else _MANY_PARTS
    return tuple(_shared(part) for part in parts.validate_python(value))


def _shared(part: TextPart | ImagePart | FilePart) -> content.Part:
    match part:
        case TextPart():
            return content.TextPart(part.text)
        case ImagePart():
            return content.ImagePart(part.image_url.url)
        case FilePart():
            return content.FilePart(part.file.filename, part.file.file_data)


def check_text_alone(value: content.Content, *, at: tuple[int | str, ...] = ()) -> None:
    """Refuse images and files, which only a user's turn takes.

    `at` is the field that holds them, below the validator that asks.

    Raises:
        ValidationError: naming the part.
    """
    for place, part in enumerate(() if isinstance(value, str) else value):
        if not isinstance(part, content.TextPart):
            mend = "only a user's turn takes images and files; this one takes text"
            raise wrong_at((*at, place), mend, None)


def _text_alone(value: content.Content) -> content.Content:
    check_text_alone(value)
    return value


def wrong_at(loc: tuple[int | str, ...], mend: str, value: object) -> ValidationError:
    """The error of a value below the one that a validator looks at."""
    line = InitErrorDetails(type=_wrong(mend), loc=loc, input=value)
    return ValidationError.from_exception_data("content", [line])


Content = Annotated[content.Content, PlainValidator(_content, json_schema_input_type=str | _Parts)]
TextContent = Annotated[Content, AfterValidator(_text_alone)]

"""Which images and files a model is known not to take.

Of a model of which nothing is known nothing is said: its provider decides.
"""

from typing import Final

from rejoin.shared import catalogue
from rejoin.shared.content import Content, FilePart, ImagePart, Part, TextPart

_TEXT_ALONE: Final = frozenset({"demo"})  # providers none of whose models takes anything else


def lack(model: str, part: ImagePart | FilePart, *, sees: bool | None = None) -> str | None:
    """Say what the model does not take; None where it takes the part, or nothing is known.

    `sees` is what its provider's list says, for a model that our own file does not have.
    """
    what = "images" if isinstance(part, ImagePart) else "files"
    provider = model.partition("/")[0]
    if provider in _TEXT_ALONE:
        return f"{model} takes no {what}"
    if provider == "ollama":  # which fetches nothing, and knows no file
        if isinstance(part, ImagePart) and not part.url.startswith("data:"):
            return f"{model} takes images as data: URLs alone"
        if isinstance(part, FilePart) and not part.file_data.startswith("data:text/"):
            return f"{model} takes no files but text"
    # A PDF is shown to a model page by page, as images; a text file is text.
    if isinstance(part, FilePart) and part.file_data.startswith("data:text/"):
        return None
    known = catalogue.find(model)
    if known is not None:
        sees = known.capabilities.vision
    return f"{model} takes no {what}" if sees is False else None


def without_lacks(content: Content, model: str, *, sees: bool | None = None) -> Content:
    """Return content of the history with a note in place of each part that `model` cannot take.

    An earlier message may have been for a model that could.
    """
    if isinstance(content, str):
        return content
    return tuple(_taken(part, model, sees) for part in content)


def _taken(part: Part, model: str, sees: bool | None) -> Part:
    if isinstance(part, TextPart) or (said := lack(model, part, sees=sees)) is None:
        return part
    what = "an image" if isinstance(part, ImagePart) else f"the file {part.filename}"
    return TextPart(f"[{what} was here, which cannot be shown: {said}]")

"""Makes each chunk of text valid Unicode: halves of a surrogate pair wait for each other."""

import re
from typing import Final

_SURROGATE: Final = re.compile("[\ud800-\udfff]")


class WholeText:
    r"""A provider's JSON may cut a pair in two chunks (`\ud83d`, then `\ude00`)."""

    def __init__(self) -> None:
        self._half = ""

    def feed(self, text: str) -> str:
        """Return what of the text so far may go out; a lone half becomes U+FFFD."""
        if not self._half and (text.isascii() or not _SURROGATE.search(text)):
            return text
        text = self._half + text
        self._half = text[-1] if "\ud800" <= text[-1:] <= "\udbff" else ""
        whole = text[:-1] if self._half else text
        return whole.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")

    def end(self) -> str:
        """Return what is left of a half whose other half never came."""
        half, self._half = self._half, ""
        return "\ufffd" if half else ""

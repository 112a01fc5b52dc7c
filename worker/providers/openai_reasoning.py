"""Puts OpenRouter's `reasoning_details` together, which the next call has to send back."""

from collections.abc import Mapping
from typing import Final

from rejoin.worker.providers.base import ThinkingChunk

# What comes in pieces, and the member that they are pieces of; other kinds come whole.
_PIECES: Final[Mapping[object, str]] = {"reasoning.text": "text", "reasoning.summary": "summary"}


class ReasoningDetails:
    """The details of one answer, those that follow each other as one made one again."""

    def __init__(self) -> None:
        self._whole: list[dict[str, object]] = []
        self._said: list[list[str]] = []

    def feed(self, details: object) -> str:
        """Take the details of one delta; return the text that they say."""
        if not isinstance(details, list):
            return ""
        return "".join(self._feed(detail) for detail in details if isinstance(detail, dict))

    def end(self) -> list[ThinkingChunk]:
        """Return them as the API takes them back: what it sent, unchanged but for the cuts."""
        for whole, said in zip(self._whole, self._said, strict=True):
            if said:
                whole[_PIECES[whole["type"]]] = "".join(said)
        return [ThinkingChunk(whole) for whole in self._whole]

    def _feed(self, detail: Mapping[str, object]) -> str:
        member = _PIECES.get(kind := detail.get("type")) if _is_word(detail) else None
        text = detail.get(member) if member else None
        said = [text] if isinstance(text, str) else []
        last = self._whole[-1] if self._whole else {}
        if member and last.get("type") == kind and _same(last, detail):
            # A signature comes with the last piece, and null with the others.
            last.update({name: value for name, value in detail.items() if value is not None})
            self._said[-1] += said
        elif detail:
            self._whole.append(dict(detail))
            self._said.append(said)
        return "".join(said)


def _is_word(detail: Mapping[str, object]) -> bool:
    return isinstance(detail.get("type"), str)


def _same(last: Mapping[str, object], detail: Mapping[str, object]) -> bool:
    """Whether both are of one block; where one of them does not say, they are."""
    for name in ("index", "id"):
        before, now = last.get(name), detail.get(name)
        if before is not None and now is not None and before != now:
            return False
    return last.get("signature") is None  # after which a block ends

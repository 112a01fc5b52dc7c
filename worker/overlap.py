"""Joins what a model gives to the text that it goes on with: nothing of it comes twice.

A model that is asked by a turn to go on repeats some of its last words, as it is told to: by them
one knows where its answer is to be joined, be it within a word. One that goes on by itself repeats
at most the white space that it was not shown.
"""

import re
from typing import Final

_LEAST_CHARS: Final = 3  # of words that are taken for a repetition
_SURE_CHARS: Final = 8  # of one that may begin within a word
_MOST_CHARS: Final = 65_536  # of a text that is looked at as a whole
_SEEN_CHARS: Final = 16_384  # of a longer one, or a part of it: its last
_DOTS: Final = ".… "
_TAIL_CHARS: Final = 60
_LINE_CHARS: Final = 12  # of a last line that tells the place by itself

# A character of a script without spaces is a word by itself, and so is a mark.
_WORD: Final = re.compile(
    "[^\\W\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u9fff\ua000-\ua4cf\uf900-\ufaff"
    "\uff00-\uffef\U00020000-\U0003ffff]+|\\S"
)


def last_words(partial: str) -> str:
    """The words at its end by which a model is told where to go on, 60 characters at most."""
    body = partial.rstrip()
    since = max(0, len(body) - _TAIL_CHARS)
    line = body.rfind("\n") + 1
    if since < line <= len(body) - _LINE_CHARS:
        since = line
    at = next((at for at in _starts(body, since)), since)
    return body[at:]


class Seam:
    """The place where the first pieces of an answer are joined to `partial`.

    `repeats`: the model was told to begin with the last words. They are left out, or else the
    longest end of the partial that the answer begins with: from a word's start on, or of 8
    characters and more.
    """

    def __init__(self, partial: str, *, repeats: bool) -> None:
        self.repeats = repeats
        self.dropped = 0  # characters of the answer that were left out, or are held back
        self._body = partial.rstrip()
        self._spaces = partial[len(self._body) :]
        self._tail = last_words(partial)
        self._looking = repeats
        self._held = ""
        self._live: list[int] | None = None  # where in the body the held text may begin

    @property
    def closed(self) -> bool:
        """Whether all that follows goes out as it is."""
        return not self._looking and not self._spaces

    def feed(self, text: str) -> str:
        """Return what of the answer so far may go out: nothing while it may be a repetition."""
        if self.closed or not text:
            return text
        self.dropped += len(text)
        if self._looking:
            self._held += text
            rest = self._decided(last=False)
            if rest is None:
                return ""
            text = rest
        return self._out(text)

    def end(self) -> str:
        """Return what is held back and is no repetition: the text ends, for now."""
        if not self._looking:
            return ""
        return self._out(self._decided(last=True) or "")

    def _out(self, text: str) -> str:
        """Leave out the white space that is there already."""
        same = 0
        for ours, theirs in zip(self._spaces, text, strict=False):
            if ours != theirs:
                break
            same += 1
        self._spaces = "" if text[same:] else self._spaces[same:]
        self.dropped -= len(text) - same
        return text[same:]

    def _decided(self, *, last: bool) -> str | None:
        """What follows the repetition, or all of it where there is none; None: not known yet."""
        said, tail = self._held.lstrip(), self._tail
        # "…and then": as a quotation that begins within a sentence is written.
        bare = said.lstrip(_DOTS) if len(tail) >= _SURE_CHARS else said
        if (begun := said).startswith(tail) or (begun := bare).startswith(tail):
            rest = begun[len(tail) :]
        else:
            live = self._live_places(said)
            whole = [at for at in live if len(self._body) - at <= len(said)]
            loose = _end_of(tail.lstrip(_DOTS), bare)
            if (tail.startswith(bare) or loose is None or len(whole) < len(live)) and not last:
                return None
            left_out = len(self._body) - whole[0] if whole else 0
            if loose and len(said) - len(bare) + loose > left_out:
                rest = bare[loose:]
            elif whole:
                rest = said[left_out:]
            else:  # it was shown the white space, and goes on behind it
                rest, self._spaces = self._held, ""
        self._looking, self._held, self._live = False, "", None
        return rest

    def _live_places(self, said: str) -> list[int]:
        """Where in the body what was said so far may begin."""
        if not said:
            return []
        places = self._places(said[0]) if self._live is None else self._live
        self._live = [at for at in places if self._may_be_at(at, said)]
        return self._live

    def _places(self, first: str) -> list[int]:
        body = self._body
        since = max(0, len(body) - _SEEN_CHARS)
        places = set(range(since, len(body) - _SURE_CHARS + 1))
        places |= {at for at in _starts(body, since) if len(body) - at >= _LEAST_CHARS}
        places.add(len(body) - len(self._tail))
        if len(body) <= _MOST_CHARS:
            places.add(len(body) - len(body.lstrip()))  # all of it
        return sorted(at for at in places if body[at] == first)

    def _may_be_at(self, at: int, said: str) -> bool:
        left = len(self._body) - at
        if left > len(said):
            return self._body.startswith(said, at)
        return said.startswith(self._body[at:])


def _end_of(tail: str, said: str) -> int | None:
    """Where in `said` the tail with which it begins ends, in whatever white space.

    0: it begins otherwise, or the tail is too short to be known so. None: not known yet.
    """
    letters = [letter for letter in tail if not letter.isspace()]
    if len(letters) < _SURE_CHARS:
        return 0
    found = 0
    for at, letter in enumerate(said):
        if letter.isspace():
            continue
        if letter != letters[found]:
            return 0
        found += 1
        if found == len(letters):
            return at + 1
    return None


def _starts(body: str, since: int) -> list[int]:
    """Where words begin, from `since` on; not where that is within one."""
    starts = [word.start() for word in _WORD.finditer(body, max(0, since - 1))]
    return [at for at in starts if at >= since]

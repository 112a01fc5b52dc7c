"""What appends published, parsed and joined for the tails."""

from typing import Final, NamedTuple

JOINED_BYTES: Final = 65_536  # what one write to each tail is joined to; one append may be more


class Batch(NamedTuple):
    """What was published in a row: events `first` to `last` of an attempt, `frames` their bytes.

    `body` is the ASGI message that carries them, made once for all tails.
    """

    attempt: int
    first: int
    last: int
    ended: bool
    frames: bytes
    body: dict[str, object]


def joined(payloads: list[bytes]) -> list[Batch]:
    """Parse what was published and join what follows on.

    Each payload is `<attempt> <first> <last> <ended>`, a new line, and the frames.

    Raises:
        ValueError, IndexError: one is not of this form: no append of ours published it.
    """
    batches: list[Batch] = []
    attempt = first = last = -1
    size = 0
    ended = False
    parts: list[bytes] = []
    for payload in payloads:
        head, frames = payload.split(b"\n", 1)
        numbers = head.split()
        size += len(frames)
        if parts and (
            int(numbers[1]) != last + 1 or int(numbers[0]) != attempt or size > JOINED_BYTES
        ):
            batches.append(_batch(attempt, first, last, ended, b"".join(parts)))
            parts = []
        if not parts:
            attempt, first, size = int(numbers[0]), int(numbers[1]), len(frames)
        last, ended = int(numbers[2]), numbers[3] == b"1"
        parts.append(frames)
    batches.append(_batch(attempt, first, last, ended, b"".join(parts)))
    return batches


def _batch(attempt: int, first: int, last: int, ended: bool, frames: bytes) -> Batch:
    body = {"type": "http.response.body", "body": frames, "more_body": not ended}
    return Batch(attempt, first, last, ended, frames, body)

"""What a log's events say, by their names."""

import json
from collections.abc import Sequence
from typing import Any

from rejoin.shared.frames import Frame
from tests.support.sse_reader import SseFrame


def names(frames: Sequence[Frame]) -> list[str]:
    """The events' names, in order."""
    return [frame.name for frame in frames]


def data(frames: Sequence[Frame], name: str) -> list[dict[str, Any]]:
    """The data of those of one name."""
    return [json.loads(frame.json) for frame in frames if frame.name == name]


def as_read(frames: Sequence[Frame]) -> list[SseFrame]:
    """The events as a client reads them."""
    return [
        SseFrame(frame.data, frame.name, json.loads(frame.json), str(frame.id)) for frame in frames
    ]

"""What a log's events say, by their names."""

import json
from collections.abc import Sequence
from typing import Any

from rejoin.shared.frames import Frame


def names(frames: Sequence[Frame]) -> list[str]:
    """The events' names, in order."""
    return [frame.name for frame in frames]


def data(frames: Sequence[Frame], name: str) -> list[dict[str, Any]]:
    """The data of those of one name."""
    return [json.loads(frame.json) for frame in frames if frame.name == name]

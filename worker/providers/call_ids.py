"""The ids of tool calls in a form that a provider takes, still another for each call."""

import re
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Final

from rejoin.worker.providers.base import Turn

_DIGEST_CHARS: Final = 8


def sent_ids(turns: Sequence[Turn], refused: re.Pattern[str], most_chars: int) -> Mapping[str, str]:
    """Return what each call's id is sent as: the same each time, and itself wherever it may be.

    `refused` is any character that the provider does not take; `most_chars` is its limit.
    """
    given = dict.fromkeys(call.tool_call_id for turn in turns for call in turn.tool_calls)
    sent = {call_id: call_id for call_id in given if _fits(call_id, refused, most_chars)}
    used = set(sent)
    for call_id in given:
        if call_id not in sent:
            made = refused.sub("_", call_id)[:most_chars]
            if made in used or not made:
                made = f"{made[: most_chars - _DIGEST_CHARS - 1]}_{_digest(call_id)}"
            used.add(made)
            sent[call_id] = made
    return sent


def _fits(call_id: str, refused: re.Pattern[str], most_chars: int) -> bool:
    return 0 < len(call_id) <= most_chars and refused.search(call_id) is None


def _digest(call_id: str) -> str:
    return sha256(call_id.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGEST_CHARS]

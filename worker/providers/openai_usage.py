"""Reads the `usage` of a chat completion: tokens, and what the provider says it costs."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Final

from rejoin.worker.providers.base import UsageChunk
from rejoin.worker.providers.chunk_json import count

_MOST_DOLLARS: Final = 10**9  # of one call: more is no price


def read_usage(usage: object) -> UsageChunk | None:
    """Return what is there, 0 for what is not; None where it is no object."""
    if not isinstance(usage, dict):
        return None
    cached = _detail(usage, "prompt_tokens_details", "cached_tokens")
    return UsageChunk(
        input_tokens=count(usage.get("prompt_tokens")),
        output_tokens=count(usage.get("completion_tokens")),
        reasoning_tokens=_detail(usage, "completion_tokens_details", "reasoning_tokens"),
        cached_tokens=cached or count(usage.get("prompt_cache_hit_tokens")),  # DeepSeek
        cost_usd=_cost(usage),
        cache_write_tokens=_detail(usage, "prompt_tokens_details", "cache_write_tokens"),
    )


def _detail(usage: Mapping[str, object], group: str, member: str) -> int:
    details = usage.get(group)
    return count(details.get(member)) if isinstance(details, dict) else 0


def _cost(usage: Mapping[str, object]) -> Decimal | None:
    """OpenRouter's own word; with a key of the caller's own its fee and the provider's price."""
    cost = _money(usage.get("cost"))
    if cost is None or usage.get("is_byok") is not True:
        return cost
    details = usage.get("cost_details")
    upstream = _money(details.get("upstream_inference_cost") if isinstance(details, dict) else None)
    return None if upstream is None else cost + upstream


def _money(value: object) -> Decimal | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    # By its text: 0.00014 means that, not the float next to it.
    return Decimal(str(value)) if 0 <= value <= _MOST_DOLLARS else None

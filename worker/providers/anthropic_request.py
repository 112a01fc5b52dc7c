"""A model call in the words of Anthropic's Messages API: limits, thinking, answer's format."""

import re
from collections.abc import Mapping, Sequence
from typing import Final

from anthropic import transform_schema

from rejoin.shared import catalogue
from rejoin.shared.request import ResponseFormat
from rejoin.worker.providers.anthropic_blocks import Offered
from rejoin.worker.providers.anthropic_turns import (
    goes_on_unthought,
    messages,
    refused,
    system,
)
from rejoin.worker.providers.base import ModelRequest, Tool, Turn

# The API wants a limit with each request. Every Claude that it still serves takes the first; a
# server that only resembles it may have any model.
_CLAUDE_TOKENS: Final = 64_000
_OTHER_TOKENS: Final = 8_192

# Those that think by a budget. Later ones take none and are told an effort; a server that only
# resembles the API knows the budget, which is older.
_BY_BUDGET: Final = re.compile(
    r"(?!claude-)|claude-(?:[0-3]|instant)|claude-(?:opus|sonnet|haiku)-4(?:-[0-5])?(?:-\d{8})?$"
)
# Those from before `output_config`; the API serves none of them any more.
_NO_FORMAT: Final = re.compile(
    r"(?!claude-)|claude-(?:[0-3]|instant)|claude-(?:opus|sonnet)-4(?:-0)?(?:-\d{8})?$"
)
# Later ones: "This model does not support assistant message prefill."
_BY_PREFIX: Final = re.compile(
    r"claude-(?:[0-3]|instant)|claude-(?:opus|sonnet|haiku)-4(?:[-.][0-5])?(?:-\d{8})?$"
)
_OFF: Final = {"type": "disabled"}
# Version 2026-10-21 of the API, the SDK's, refuses these whatever their value. The one before it
# takes them for the models that have them, and has the same events.
_SAMPLING: Final = frozenset({"temperature", "top_p"})
_SAMPLED_VERSION: Final = "2023-06-01"
_LEAST_BUDGET: Final = 1024
_BUDGETS: Final[Mapping[str, int]] = {
    "minimal": 1024,
    "low": 2048,
    "medium": 8192,
    "high": 16_384,
    "xhigh": 32_000,
    "max": 63_999,
}
_EFFORTS: Final[Mapping[str, str]] = {"minimal": "low"}  # OpenAI's word, which Claude has not


def headers(made: Mapping[str, object], reference: str) -> dict[str, str]:
    """What goes with a body besides the SDK's own headers; `reference` is the message's."""
    sent = {"X-Client-Request-Id": reference} if reference else {}
    if _SAMPLING.isdisjoint(made):
        return sent
    return sent | {"anthropic-version": _SAMPLED_VERSION}


def goes_on_by_prefix(model: str) -> bool:
    """Whether a Claude goes on with a last turn that is its own, when it does not think."""
    return _BY_PREFIX.match(model) is not None


def offered(request: ModelRequest) -> Offered:
    """What the model is offered to call."""
    wanted = request.response_format
    answer = wanted.name if wanted is not None and _NO_FORMAT.match(request.model) else None
    return Offered(bool(request.tools), answer)


def body(request: ModelRequest) -> dict[str, object]:
    """The request's body, but for `stream`; what is not asked for is left out.

    Raises:
        ProviderError: `invalid_request`, a part or an effort is of a kind that the API does not
            take.
    """
    limit = request.max_tokens or _most_tokens(request.model)
    said_so_far = messages(request.turns)
    made: dict[str, object] = {
        "model": request.model,
        "max_tokens": limit,
        "messages": said_so_far,
    }
    if said := system(request.turns):
        made["system"] = said
    if request.stop:
        made["stop_sequences"] = list(request.stop)
    made |= _thought(request, limit, thinks=not goes_on_unthought(said_so_far))
    if "thinking" not in made or made["thinking"] == _OFF:
        # With thinking on, the API takes neither.
        made |= _given(temperature=request.temperature, top_p=request.top_p)
    return made | _tools_and_format(request, made.get("output_config"))


def _thought(request: ModelRequest, limit: int, *, thinks: bool) -> dict[str, object]:
    """`thinking` and its effort; summarized, for later models show none of it unless asked.

    `thinks`: a model with a budget may think after these turns.
    """
    effort = request.reasoning_effort
    if effort is None:
        return {}
    if effort == "none":
        return {"thinking": _OFF}
    if not _BY_BUDGET.match(request.model):
        return {
            "thinking": {"type": "adaptive", "display": "summarized"},
            "output_config": {"effort": _EFFORTS.get(effort, effort)},
        }
    if effort not in _BUDGETS:
        raise refused(f"reasoning_effort is one of none, {', '.join(_BUDGETS)}")
    # Half of the limit at most: what is thought counts towards it, and the answer needs the rest.
    budget = min(_BUDGETS[effort], limit // 2)
    if not thinks or budget < _LEAST_BUDGET or offered(request).answer is not None:
        return {}  # too small for any, or a tool is forced, which goes with no thinking
    return {"thinking": {"type": "enabled", "budget_tokens": budget}}


def _tools_and_format(request: ModelRequest, config: object) -> dict[str, object]:
    tools = [_tool(tool) for tool in request.tools]
    made: dict[str, object] = {}
    if (wanted := request.response_format) is not None:
        if offered(request).answer is None:
            form = {"type": "json_schema", "schema": _fitted(wanted)}
            made["output_config"] = {**(config if isinstance(config, dict) else {}), "format": form}
        else:
            # Its arguments are the answer. Beside tools of the request's own: one of them all.
            said = wanted.description or "Gives the answer."
            tools.append(_tool(Tool(wanted.name, said, wanted.schema)))
            forced = {"type": "tool", "name": wanted.name}
            made["tool_choice"] = {"type": "any"} if request.tools else forced
    if not tools and (used := _used(request.turns)):
        # The API takes no call in the history without `tools`; this model may call none of them.
        # As text a model would take the calls for its own words, and write more such.
        tools = [_tool(tool) for tool in used]
        made["tool_choice"] = {"type": "none"}
    return made | ({"tools": tools} if tools else {})


def _used(turns: Sequence[Turn]) -> list[Tool]:
    """The tools that were called, of which no more is known than their names."""
    names = dict.fromkeys(call.name for turn in turns for call in turn.tool_calls)
    return [Tool(name, "", {"type": "object"}) for name in names]


def _fitted(wanted: ResponseFormat) -> dict[str, object]:
    """The schema in the subset that the API takes; as it is where the SDK cannot put it so."""
    try:
        return transform_schema(wanted.schema)
    except (ValueError, TypeError, AttributeError, AssertionError):
        return wanted.schema


def _tool(tool: Tool) -> dict[str, object]:
    described = {"description": tool.description} if tool.description else {}
    return {"name": tool.name, **described, "input_schema": dict(tool.parameters)}


def _given(**fields: object) -> dict[str, object]:
    return {name: value for name, value in fields.items() if value is not None}


def _most_tokens(model: str) -> int:
    """The catalogue's limit for a model, its dated names too."""
    known = catalogue.find("anthropic/" + re.sub(r"-\d{8}$", "", model))
    if known is not None and known.max_output_tokens is not None:
        return known.max_output_tokens
    return _CLAUDE_TOKENS if model.startswith("claude-") else _OTHER_TOKENS

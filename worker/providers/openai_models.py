"""Reads the lists of models of OpenAI's API, of OpenRouter and of Ollama."""

import json
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal, InvalidOperation

from rejoin.worker.providers import error_objects
from rejoin.worker.providers.base import ListedModel

# They go on with a last turn of the assistant's, whatever the model, and name themselves so.
_OPEN_SERVERS = frozenset({"llamacpp", "sglang", "vllm"})
_MILLION = Decimal(1_000_000)


def read_object(body: bytes) -> dict[str, object]:
    """Return a JSON object.

    Raises:
        ProviderError: `provider_protocol`, it is none.
    """
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise error_objects.protocol("the answer is no list of models")
    return value


def read_models(
    body: bytes, member: str, read: Callable[[Mapping[str, object]], ListedModel | None]
) -> list[ListedModel]:
    """Return the models in the list `member` of a body; what `read` gives None for is left out.

    Raises:
        ProviderError: `provider_protocol`, there is no such list.
    """
    entries = read_object(body).get(member)
    if not isinstance(entries, list):
        raise error_objects.protocol("the answer is no list of models")
    models = (read(entry) for entry in entries if isinstance(entry, dict))
    return [model for model in models if model is not None]


def plain(entry: Mapping[str, object]) -> ListedModel | None:
    """A model of OpenAI's own list, which has names; a vLLM says the context too."""
    name = _name(entry.get("id"))
    if not name:
        return None
    continues = entry.get("owned_by") in _OPEN_SERVERS
    return ListedModel(name, _tokens(entry.get("max_model_len")), continues=continues)


def openrouter(entry: Mapping[str, object]) -> ListedModel | None:
    """A model of OpenRouter's list; None for one that writes no text."""
    name = _name(entry.get("id"))
    kinds = _member(entry, "architecture")
    if not name or "text" not in _words(kinds.get("output_modalities"), ("text",)):
        return None
    asked = _words(entry.get("supported_parameters"))
    able = {"tools", "reasoning"} & asked
    if "structured_outputs" in asked:
        able.add("json_schema")
    if "image" in _words(kinds.get("input_modalities")):
        able.add("vision")
    top, prices = _member(entry, "top_provider"), _member(entry, "pricing")
    price = [_price(prices.get(side)) for side in ("prompt", "completion")]
    return ListedModel(
        name,
        _tokens(entry.get("context_length")) or _tokens(top.get("context_length")),
        _tokens(top.get("max_completion_tokens")),
        frozenset(able) if isinstance(entry.get("supported_parameters"), list) else None,
        None if price[0] is None or price[1] is None else (price[0], price[1]),
    )


def ollama(entry: Mapping[str, object]) -> ListedModel | None:
    """A model of Ollama's `/api/tags`, which is a name and a size."""
    name = _name(entry.get("model")) or _name(entry.get("name"))
    return ListedModel(name.removesuffix(":latest")) if name else None


def ollama_shown(name: str, shown: Mapping[str, object]) -> ListedModel | None:
    """The same model by its `/api/show`; None for one that only embeds."""
    can = shown.get("capabilities")
    words = _words(can)
    if isinstance(can, list) and "completion" not in words:
        return None
    able = {"tools", "vision"} & words | ({"reasoning"} if "thinking" in words else set())
    return ListedModel(
        name,
        _ollama_context(shown),
        # It holds any model's answer to a schema, by its grammar.
        capabilities=frozenset({"json_schema", *able}) if isinstance(can, list) else None,
    )


def _ollama_context(shown: Mapping[str, object]) -> int | None:
    """The context that the model was made with here, else the longest that it has."""
    for line in str(shown.get("parameters") or "").splitlines():
        match line.split():
            case ["num_ctx", number] if number.isdigit():
                return int(number) or None
    lengths = (
        _tokens(value)
        for name, value in _member(shown, "model_info").items()
        if name.endswith(".context_length")
    )
    return next(lengths, None)


def _price(value: object) -> Decimal | None:
    """US dollars per million tokens, of a decimal string per token; -1 is one that varies."""
    try:
        price = Decimal(value) if isinstance(value, str) else None
    except InvalidOperation:
        return None
    return price * _MILLION if price is not None and price.is_finite() and price >= 0 else None


def _name(value: object) -> str:
    return value if isinstance(value, str) else ""


def _tokens(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _words(value: object, default: Iterable[str] = ()) -> set[str]:
    words = value if isinstance(value, list) else default
    return {word for word in words if isinstance(word, str)}


def _member(entry: Mapping[str, object], name: str) -> Mapping[str, object]:
    value = entry.get(name)
    return value if isinstance(value, dict) else {}

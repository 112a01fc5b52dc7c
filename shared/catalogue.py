"""The models that Rejoin knows, its providers, and which model names can be used at all."""

import json
import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from functools import cache
from importlib.resources import files
from typing import Final
from urllib.parse import parse_qsl

from rejoin.shared.errors import BadRequest, NotFound
from rejoin.shared.providers import REGISTRY

MAX_MODEL_CHARS: Final = 256
DEMO_RATE: Final = 20.0
AGENTS: Final = "agent"  # where a provider's name is: `agent/NAME`

_AGENT: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_RATE: Final = re.compile(r"[0-9]{1,6}(?:\.[0-9]{1,6})?")


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a model can do beyond answering text with text; None where nobody said."""

    tools: bool | None = None
    vision: bool | None = None
    json_schema: bool | None = None
    reasoning: bool | None = None

    @classmethod
    def of(cls, names: Collection[str] | None) -> "Capabilities":
        """Those that are named, and none of the others; of None nothing is known."""
        if names is None:
            return cls()
        return cls(**{field.name: field.name in names for field in fields(cls)})


@dataclass(frozen=True, slots=True)
class Model:
    """What our own file says of a model; None where it does not know."""

    id: str
    provider: str
    name: str
    context_window: int | None
    max_output_tokens: int | None
    capabilities: Capabilities


@dataclass(frozen=True, slots=True)
class ProviderState:
    """Whether a provider can be used, and one sentence on how it is configured."""

    name: str
    configured: bool
    hint: str


@cache
def known() -> Mapping[str, Model]:
    """Return our own file's models by their id; a provider has others of its own too."""
    source = files("rejoin.shared").joinpath("catalogue.json").read_text("utf-8")
    models = [
        Model(
            id=f"{provider}/{entry['name']}",
            provider=provider,
            name=entry["name"],
            context_window=entry["context_window"],
            max_output_tokens=entry["max_output_tokens"],
            capabilities=Capabilities.of(entry["capabilities"]),
        )
        for provider, entries in json.loads(source).items()
        for entry in entries
    ]
    return {model.id: model for model in models}


def find(model: str) -> Model | None:
    """Return what our own file says of `provider/name`, whatever its parameters."""
    return known().get(model.partition("?")[0])


def providers(environ: Mapping[str, str] = os.environ) -> list[ProviderState]:
    """Return every provider that this version has, the one without a key first."""
    return [
        ProviderState(
            entry.name,
            not entry.variables or any(environ.get(name, "").strip() for name in entry.variables),
            entry.hint,
        )
        for entry in REGISTRY
    ]


def check_model(model: str) -> None:
    """Refuse a model name that no worker could use; ask nobody whether the model exists.

    Raises:
        BadRequest: it is no name at all, or the parameters of `demo/echo` are wrong.
        NotFound: no such provider, no `provider/` in front, or no such demo model.
    """
    if not model or len(model) > MAX_MODEL_CHARS:
        raise _bad(f"a model's name has 1 to {MAX_MODEL_CHARS} characters: provider/name")
    if " " in model or not model.isprintable():
        raise _bad("a model's name has no white space and no control characters")
    provider, _, name = model.partition("/")
    if is_agent(model) and is_agent_name(name):
        return
    if not name or provider not in {entry.name for entry in REGISTRY}:
        raise NotFound(f"there is no model {model}")
    if provider == "demo":
        parse_demo_rate(name)


def is_agent(model: str) -> bool:
    """Whether the name is that of an agent, `agent/NAME`, and no provider's."""
    return model.partition("/")[0] == AGENTS


def is_agent_name(name: str) -> bool:
    """Whether an agent may have the name: 1 to 64 letters, digits, `_`, `.` and `-`."""
    return _AGENT.fullmatch(name) is not None


def parse_demo_rate(name: str) -> float:
    """Return the chunks a second that `echo?rate=50` asks for; 0: as fast as possible.

    `name` is without its `demo/`. Without a rate: 20.

    Raises:
        BadRequest: another parameter, or a rate that is no plain number from 0 to 999999.
        NotFound: it is not echo.
    """
    base, _, query = name.partition("?")
    if base != "echo":
        raise NotFound(f"there is no model demo/{name}")
    parameters = parse_qsl(query, keep_blank_values=True, separator="&")
    if [parameter for parameter, _ in parameters] not in ([], ["rate"]):
        raise _bad("demo/echo takes one parameter, rate: demo/echo?rate=50")
    if not parameters:
        return DEMO_RATE
    rate = parameters[0][1]
    if _RATE.fullmatch(rate) is None:
        raise _bad("rate is a number of chunks a second, 0 for as fast as possible")
    return float(rate)


def _bad(mend: str) -> BadRequest:
    return BadRequest(mend, field=("model",))

"""The models that Rejoin knows, its providers, and which model names can be used at all."""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Final
from urllib.parse import parse_qsl

from rejoin.shared.errors import BadRequest, NotFound

MAX_MODEL_CHARS: Final = 256
DEMO_RATE: Final = 20.0

_RATE: Final = re.compile(r"[0-9]{1,6}(?:\.[0-9]{1,6})?")


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a model can do beyond answering text with text."""

    tools: bool = False
    vision: bool = False
    json_schema: bool = False
    reasoning: bool = False


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars for a million tokens, as decimal strings."""

    input: str
    output: str


@dataclass(frozen=True, slots=True)
class Model:
    """One entry of `GET /api/models`: `dataclasses.asdict` gives the contract's object.

    `available`: its provider is configured in this process's environment.
    """

    id: str
    provider: str
    name: str
    context_window: int
    max_output_tokens: int
    capabilities: Capabilities
    price: Price | None
    available: bool


@dataclass(frozen=True, slots=True)
class ProviderState:
    """Whether a provider can be used, and one sentence on how it is configured."""

    name: str
    configured: bool
    hint: str


def known(environ: Mapping[str, str] = os.environ) -> list[Model]:
    """Return the catalogue; a provider takes other models of its own too."""
    configured = {state.name: state.configured for state in providers(environ)}
    return [
        Model(
            id=f"{provider}/{entry['name']}",
            provider=provider,
            name=entry["name"],
            context_window=entry["context_window"],
            max_output_tokens=entry["max_output_tokens"],
            capabilities=Capabilities(**dict.fromkeys(entry["capabilities"], True)),
            price=None if entry["price"] is None else Price(**entry["price"]),
            available=configured[provider],
        )
        for provider, entries in json.loads(_source()).items()
        for entry in entries
    ]


def providers(environ: Mapping[str, str] = os.environ) -> list[ProviderState]:
    """Return every provider that this version has, the one without a key first."""
    key, url = (environ.get(name, "").strip() for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"))
    return [
        ProviderState("demo", True, "demo/echo needs no key and sends your words back."),
        ProviderState(
            "openai",
            bool(key or url),
            "Set OPENAI_API_KEY; for another server with OpenAI's API (OpenRouter, Ollama's /v1)"
            " set OPENAI_BASE_URL too, the key only where it asks for one.",
        ),
    ]


def check_model(model: str) -> None:
    """Refuse a model name that no worker could use; ask no provider whether it has it.

    Raises:
        BadRequest: it is no name at all, or the parameters of `demo/echo` are wrong.
        NotFound: no such provider, no `provider/` in front, or no such demo model.
    """
    if not model or len(model) > MAX_MODEL_CHARS:
        raise _bad(f"a model's name has 1 to {MAX_MODEL_CHARS} characters: provider/name")
    if " " in model or not model.isprintable():
        raise _bad("a model's name has no white space and no control characters")
    provider, _, name = model.partition("/")
    if not name or provider not in {state.name for state in providers({})}:
        raise NotFound(f"there is no model {model}")
    if provider == "demo":
        parse_demo_rate(name)


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


@cache
def _source() -> str:
    return files("rejoin.shared").joinpath("catalogue.json").read_text("utf-8")

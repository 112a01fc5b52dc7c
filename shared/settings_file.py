"""The settings file that `REJOIN_SETTINGS_FILE` names: TOML, for what is too long for a variable.

A table that nobody knows is refused, and so is a key: a misspelt one must not go unheeded.
"""

import difflib
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from rejoin.shared.errors import SettingsError
from rejoin.shared.providers import REGISTRY

SETTING: Final = "REJOIN_SETTINGS_FILE"

_MOST_NAME_CHARS: Final = 32
_PROVIDERS: Final = frozenset(entry.name for entry in REGISTRY)
_AGENTS: Final = "agent"  # as the catalogue has it, which stands above this
_LINES: Final = 'each line is "provider/name" = ["provider/name"], a list of at most 8 models'
_NAME: Final = re.compile(r"[A-Za-z0-9-]+(_[A-Za-z0-9-]+)*")  # "__" parts it from a tool's name
_VARIABLE: Final = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


class McpServer(BaseModel):
    """One `[mcp.NAME]`: a server that is started by its command, or one that is at a URL."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    command: Annotated[list[str], Field(min_length=1)] | None = None
    env: Annotated[dict[str, str], Field(repr=False)] = {}
    cwd: str | None = None
    url: Annotated[str, Field(pattern=r"^https?://[^/]")] | None = None
    headers: Annotated[dict[str, str], Field(repr=False)] = {}
    timeout_seconds: Annotated[float, Field(gt=0, le=7 * 86400, allow_inf_nan=False)] = 60
    needs_approval: bool | list[str] = False
    on_unknown_outcome: Literal["fail", "retry", "ask", "hints"] = "fail"

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.command is None) == (self.url is None):
            raise ValueError("it has either `command`, a list of strings, or `url`")
        if self.url is not None and (self.env or self.cwd is not None):
            raise ValueError("`env` and `cwd` are for a `command`")
        if self.command is not None and self.headers:
            raise ValueError("`headers` are for a `url`")
        return self


class Quota(BaseModel):
    """One `[quota.PROVIDER]`: what all workers together ask of the provider's key; None: no bound.

    `tokens_per_minute` counts what is sent and what is answered.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    requests_per_minute: Annotated[int, Field(ge=1)] | None = None
    tokens_per_minute: Annotated[int, Field(ge=1)] | None = None
    requests_at_once: Annotated[int, Field(ge=1)] | None = None


class SettingsFile(BaseModel):
    """What the file says. Frozen: a process reads it once, at its start.

    `fallbacks` has, by model, those to go on with where a request names none of its own.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    mcp: dict[str, McpServer] = {}
    fallbacks: dict[str, Annotated[list[str], Field(max_length=8)]] = {}
    quota: dict[str, Quota] = {}

    @model_validator(mode="after")
    def _models_of_fallbacks(self) -> Self:
        for model, others in self.fallbacks.items():
            for one in (model, *others):
                if fault := _model_fault(one):
                    raise ValueError(f"[fallbacks] {model!r}: {fault}")
            if model in others:
                raise ValueError(f"[fallbacks] {model!r}: it is its own fallback")
        return self

    @model_validator(mode="after")
    def _providers_of_quotas(self) -> Self:
        for name in self.quota:
            if name not in _PROVIDERS:
                raise ValueError(f"[quota.{name}]: {_no_provider(name)}")
        return self

    @model_validator(mode="after")
    def _names(self) -> Self:
        for name in self.mcp:
            if not _NAME.fullmatch(name) or len(name) > _MOST_NAME_CHARS:
                raise ValueError(
                    f"[mcp.{name}]: a name is 1 to {_MOST_NAME_CHARS} of a-z, A-Z, 0-9, - and"
                    " single _ within"
                )
        return self


_QUOTA_KEYS: Final = f": it has {', '.join(Quota.model_fields)}"


def load(path: Path | None) -> SettingsFile:
    """Read the file; without one nothing is set.

    Raises:
        SettingsError: it cannot be read, or a table or key of it is wrong.
    """
    if path is None:
        return SettingsFile()
    try:
        said = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise SettingsError(f"{SETTING}: {path} cannot be read: {reason}") from error
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{SETTING}: {path} is not TOML: {error}{_toml_mend(error)}") from error
    try:
        return SettingsFile.model_validate(said)
    except ValidationError as error:
        # Not pydantic's own text: it shows the values, and one may be a secret.
        faults = [_fault(item["loc"], item["type"], item["msg"]) for item in error.errors()]
        raise SettingsError(f"{SETTING}: {path}: {'; '.join(dict.fromkeys(faults))}") from error


def filled_in(file: SettingsFile, environ: Mapping[str, str] = os.environ) -> SettingsFile:
    """Return it with each `${NAME}` in `env` and `headers` replaced by that variable's value.

    Raises:
        SettingsError: a variable is not set, or a `${` does not end; no value is shown.
    """
    servers = {}
    for name, server in file.mcp.items():
        env = _filled(server.env, f"[mcp.{name}] env", environ)
        headers = _filled(server.headers, f"[mcp.{name}] headers", environ)
        servers[name] = server.model_copy(update={"env": env, "headers": headers})
    return file.model_copy(update={"mcp": servers})


def _filled(values: Mapping[str, str], at: str, environ: Mapping[str, str]) -> dict[str, str]:
    filled = {}
    for key, value in values.items():
        for name in _VARIABLE.findall(value):
            if name not in environ:
                raise SettingsError(f"{SETTING}: {at} {key}: the variable {name} is not set")
        if "${" in _VARIABLE.sub("", value):
            raise SettingsError(f"{SETTING}: {at} {key}: write a variable as ${{NAME}}")
        filled[key] = _VARIABLE.sub(lambda found: environ[found[1]], value)
    return filled


def _toml_mend(error: tomllib.TOMLDecodeError) -> str:
    unquoted = str(error).startswith("Expected '=' after a key")
    return '; a key with a "/" or ":" in it has quotation marks around it' if unquoted else ""


def _model_fault(model: str) -> str:
    """What is wrong with a model's name here; empty: nothing that can be seen from it."""
    provider, _, name = model.partition("/")
    if not name:
        return f"{model!r} is no model: write provider/name"
    if provider == _AGENTS:
        return f"{model!r} is an agent: not this table, but a request may name one"
    return "" if provider in _PROVIDERS else f"{model!r} is no model: {_no_provider(provider)}"


def _no_provider(name: str) -> str:
    close = difflib.get_close_matches(name, _PROVIDERS, n=1)
    known = f"did you mean {close[0]}?" if close else f"there are {', '.join(sorted(_PROVIDERS))}"
    return f"there is no provider {name}: {known}"


def _fault(where: tuple[Any, ...], kind: str, said: str) -> str:
    """One fault with its table and key; `where` is pydantic's, with its own words for unions."""
    said = said.removeprefix("Value error, ")
    path = [str(part) for part in where]
    if not path:
        return said
    if path[0] == "fallbacks":
        return f"{' '.join(['[fallbacks]', *path[1:2]])}: {_LINES}"
    if path[0] == "quota":
        return _quota_fault(path, kind)
    if path[0] != "mcp":
        known = _hint(path[0], SettingsFile) or f": it has {', '.join(SettingsFile.model_fields)}"
        return f"{path[0]} is no table of it{known}"
    if len(path) < len(("mcp", "NAME", "key")):
        return f"[{'.'.join(path)}]: {said if len(path) > 1 else 'it has tables, [mcp.NAME]'}"
    table, key = f"[mcp.{path[1]}]", path[2]
    if kind == "extra_forbidden":
        return f"{table} {key} is no key of it{_hint(key, McpServer)}"
    if key == "needs_approval":
        said = "it is true, false or a list of the server's tool names"
    return f"{table} {key}: {said}"


def _quota_fault(path: list[str], kind: str) -> str:
    if len(path) < len(("quota", "PROVIDER", "key")):
        return f"[{'.'.join(path)}]: it has tables, [quota.PROVIDER]"
    table, key = f"[quota.{path[1]}]", path[2]
    if kind == "extra_forbidden":
        return f"{table} {key} is no key of it{_hint(key, Quota) or _QUOTA_KEYS}"
    return f"{table} {key}: it is a whole number from 1 on"


def _hint(name: str, model: type[BaseModel]) -> str:
    close = difflib.get_close_matches(name, model.model_fields, n=1)
    return f": did you mean {close[0]}?" if close else ""

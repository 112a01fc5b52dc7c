"""The settings, from `REJOIN_*` in the environment, checked once."""

import difflib
import os
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from rejoin.shared.errors import SettingsError

PREFIX: Final = "REJOIN_"

# Promised by the contract, built by a later version: named, so that nobody waits for their effect.
LATER: Final = frozenset(
    {
        "REJOIN_JWT_SECRET",
        "REJOIN_JWKS_URL",
    }
)

_DATABASES: Final = ("postgresql+asyncpg://", "sqlite+aiosqlite:///")

Seconds = Annotated[float, Field(gt=0, le=7 * 86400, allow_inf_nan=False)]


class Settings(BaseSettings):
    """What the operator chose; every default is the contract's.

    Seconds and bytes where the name says so. Frozen: a process reads it once, at its start.
    """

    # hide_input: a traceback shows the error's cause too, and a value may be a secret.
    model_config = SettingsConfigDict(
        env_prefix=PREFIX, frozen=True, env_ignore_empty=True, hide_input_in_errors=True
    )

    data_dir: Path = Path("data")
    redis_url: str | None = None
    database_url: str | None = None
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    default_model: str | None = None
    max_jobs: int = Field(default=200, ge=1, le=100_000)
    lease_seconds: float = Field(default=5, ge=0.1, le=7 * 86400, allow_inf_nan=False)
    max_attempts: int = Field(default=5, ge=1)
    provider_retries: int = Field(default=6, ge=1, le=100)
    timeout_first_token: Seconds = 120
    timeout_idle: Seconds = 60
    timeout_total: Seconds = 3600
    tools: Annotated[tuple[str, ...], NoDecode] = ()
    agents: Annotated[tuple[str, ...], NoDecode] = ()
    settings_file: Path | None = None
    tool_wait_seconds: float = Field(default=86_400, gt=0, le=366 * 86_400, allow_inf_nan=False)
    tool_output_bytes: int = Field(default=65_536, ge=64)
    max_steps: int = Field(default=50, ge=1, le=10_000)
    drain_seconds: float = Field(default=20, ge=0, le=86_400, allow_inf_nan=False)
    log_ttl_seconds: int = Field(default=3600, ge=1)
    open_ttl_seconds: int = Field(default=604_800, ge=60)
    retention_days: int | None = Field(default=None, ge=1, le=36_500)
    max_log_bytes: int = Field(default=16_777_216, ge=1024)
    max_stream_seconds: Seconds = 3600
    max_queue: int = Field(default=10_000, ge=0)
    max_body_bytes: int = Field(default=1_048_576, ge=1)
    keepalive_seconds: float = Field(default=15, gt=0, le=15)
    retry_milliseconds: int = Field(default=1000, ge=0, le=3_600_000)
    cors_origins: Annotated[tuple[str, ...], NoDecode] = ()
    auth: Literal["none", "jwt"] = "none"
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @field_validator("cors_origins", "tools", "agents", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        """Take a comma-separated list, as an environment variable holds it."""
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("redis_url")
    @classmethod
    def _redis_scheme(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(("redis://", "rediss://", "unix://")):
            raise ValueError("write it as redis://HOST:PORT/DB, rediss://… or unix://…")
        if value is not None:
            # Here: it takes a fifth of a second, and the terminal's commands need none of it.
            from rejoin.shared.redis_address import read_redis_address

            try:
                read_redis_address(value)
            except SettingsError as error:
                raise ValueError(str(error).partition(": ")[2]) from None
        return value

    @field_validator("database_url")
    @classmethod
    def _database_scheme(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(_DATABASES):
            # Not shown: it may hold a password.
            raise ValueError(
                "write it as postgresql+asyncpg://USER:PASSWORD@HOST:PORT/NAME or"
                " sqlite+aiosqlite:////PATH/TO/FILE"
            )
        return value

    @model_validator(mode="after")
    def _open_to_this_machine_alone(self) -> Self:
        if self.auth == "jwt":
            raise ValueError(
                "REJOIN_AUTH=jwt comes with a later version; leave it unset and listen on loopback"
            )
        if not is_loopback(self.host):
            raise ValueError(
                f"REJOIN_HOST={self.host} is open to other machines, and REJOIN_AUTH=none has no"
                " authentication: listen on 127.0.0.1 behind a proxy that authenticates"
            )
        return self

    def redis_url_of(self, process: str) -> str:
        """The Redis that `process` (api or worker) uses.

        Raises:
            SettingsError: none is named; only `rejoin dev` brings its own.
        """
        if self.redis_url is None:
            raise SettingsError(
                f"REJOIN_REDIS_URL is not set: name the Redis that the {process} shares with the"
                " others, or start everything by `rejoin dev`"
            )
        return self.redis_url


def is_loopback(host: str) -> bool:
    """Whether `host` is reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def load_settings() -> Settings:
    """Read the environment.

    Raises:
        SettingsError: naming each wrong variable and what it takes.
    """
    try:
        return Settings()
    except ValidationError as error:
        lines = []
        for item in error.errors(include_url=False, include_context=False):
            name = PREFIX + "_".join(str(part) for part in item["loc"]).upper()
            said = item["msg"].removeprefix("Value error, ")
            lines.append(said if not item["loc"] else f"{name}: {said}")
        raise SettingsError("; ".join(lines)) from error


def unheeded(environ: Mapping[str, str] = os.environ) -> list[str]:
    """One sentence for each `REJOIN_*` variable that is set and has no effect."""
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    said = []
    for name in sorted(environ):
        if not name.startswith(PREFIX) or name in known:
            continue
        if name in LATER:
            said.append(f"{name} is set, but this version does not heed it yet")
            continue
        close = difflib.get_close_matches(name, known, n=1)
        hint = f": did you mean {close[0]}?" if close else ""
        said.append(f"{name} is no setting of Rejoin{hint}")
    return said

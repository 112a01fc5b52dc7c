"""The settings: the contract's defaults, and an error that names the variable."""

import traceback
from pathlib import Path

import pytest

from rejoin.shared.errors import SettingsError
from rejoin.shared.settings import LATER, PREFIX, Settings, is_loopback, load_settings, unheeded

# The contract's table. Those of later versions are in LATER instead.
DEFAULTS: dict[str, object] = {
    "REJOIN_DATA_DIR": Path("./data"),
    "REJOIN_REDIS_URL": None,
    "REJOIN_DATABASE_URL": None,
    "REJOIN_RETENTION_DAYS": None,
    "REJOIN_HOST": "127.0.0.1",
    "REJOIN_PORT": 8000,
    "REJOIN_DEFAULT_MODEL": None,
    "REJOIN_MAX_JOBS": 200,
    "REJOIN_LEASE_SECONDS": 5,
    "REJOIN_MAX_ATTEMPTS": 5,
    "REJOIN_PROVIDER_RETRIES": 6,
    "REJOIN_TIMEOUT_FIRST_TOKEN": 120,
    "REJOIN_TIMEOUT_IDLE": 60,
    "REJOIN_TIMEOUT_TOTAL": 3600,
    "REJOIN_DRAIN_SECONDS": 20,
    "REJOIN_TOOLS": (),
    "REJOIN_AGENTS": (),
    "REJOIN_TOOL_WAIT_SECONDS": 86_400,
    "REJOIN_LOG_TTL_SECONDS": 3600,
    "REJOIN_OPEN_TTL_SECONDS": 604_800,
    "REJOIN_MAX_LOG_BYTES": 16_777_216,
    "REJOIN_MAX_STREAM_SECONDS": 3600,
    "REJOIN_MAX_QUEUE": 10_000,
    "REJOIN_MAX_BODY_BYTES": 1_048_576,
    "REJOIN_CORS_ORIGINS": (),
    "REJOIN_AUTH": "none",
}
PROMISED_FOR_LATER = {
    "REJOIN_JWT_SECRET",
    "REJOIN_JWKS_URL",
}
WRONG = [
    ("REJOIN_DATABASE_URL", "mysql://u:p@h/n"),
    ("REJOIN_RETENTION_DAYS", "0"),
    ("REJOIN_PORT", "http"),
    ("REJOIN_PORT", "65536"),
    ("REJOIN_PORT", "-1"),
    ("REJOIN_MAX_JOBS", "0"),
    ("REJOIN_MAX_JOBS", "many"),
    ("REJOIN_MAX_JOBS", "1.5"),
    ("REJOIN_LEASE_SECONDS", "0"),
    ("REJOIN_LEASE_SECONDS", "0.0001"),
    ("REJOIN_LEASE_SECONDS", "-5"),
    ("REJOIN_LEASE_SECONDS", "nan"),
    ("REJOIN_LEASE_SECONDS", "inf"),
    ("REJOIN_MAX_ATTEMPTS", "0"),
    ("REJOIN_PROVIDER_RETRIES", "0"),
    ("REJOIN_DRAIN_SECONDS", "-1"),
    ("REJOIN_DRAIN_SECONDS", "inf"),
    ("REJOIN_TIMEOUT_FIRST_TOKEN", "0"),
    ("REJOIN_TIMEOUT_IDLE", "soon"),
    ("REJOIN_TIMEOUT_TOTAL", "inf"),
    ("REJOIN_TOOL_WAIT_SECONDS", "0"),
    ("REJOIN_TOOL_OUTPUT_BYTES", "63"),
    ("REJOIN_MAX_STEPS", "0"),
    ("REJOIN_LOG_TTL_SECONDS", "0"),
    ("REJOIN_OPEN_TTL_SECONDS", "1"),
    ("REJOIN_MAX_LOG_BYTES", "1023"),
    ("REJOIN_MAX_STREAM_SECONDS", "nan"),
    ("REJOIN_MAX_QUEUE", "-1"),
    ("REJOIN_MAX_BODY_BYTES", "0"),
    ("REJOIN_KEEPALIVE_SECONDS", "15.1"),
    ("REJOIN_KEEPALIVE_SECONDS", "0"),
    ("REJOIN_KEEPALIVE_SECONDS", "nan"),
    ("REJOIN_RETRY_MILLISECONDS", "-1"),
    ("REJOIN_REDIS_URL", "localhost:6379"),
    ("REJOIN_REDIS_URL", "http://localhost:6379"),
    ("REJOIN_AUTH", "basic"),
    ("REJOIN_AUTH", "jwt"),
    ("REJOIN_LOG_LEVEL", "loud"),
    ("REJOIN_HOST", "0.0.0.0"),
    ("REJOIN_HOST", "::"),
    ("REJOIN_HOST", "192.168.1.7"),
    ("REJOIN_HOST", "example.org"),
]


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in list(os.environ):
        if name.upper().startswith(PREFIX):
            monkeypatch.delenv(name)


@pytest.mark.parametrize("name", DEFAULTS)
def test_the_default_is_the_contracts(name: str) -> None:
    assert getattr(load_settings(), name.removeprefix(PREFIX).lower()) == DEFAULTS[name]


def test_every_setting_of_the_contract_is_heeded_or_named_as_a_later_ones() -> None:
    fields = {PREFIX + name.upper() for name in Settings.model_fields}
    assert DEFAULTS.keys() <= fields
    assert LATER == PROMISED_FOR_LATER
    assert not LATER & fields


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_a_wrong_value_is_refused_by_the_variables_name(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=name):
        load_settings()


def test_every_wrong_value_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REJOIN_PORT", "x")
    monkeypatch.setenv("REJOIN_MAX_JOBS", "x")
    with pytest.raises(SettingsError, match=r"REJOIN_PORT.*REJOIN_MAX_JOBS"):
        load_settings()


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("REJOIN_REDIS_URL", "http://:hunter2@localhost"),
        ("REJOIN_REDIS_URL", "redis://:hunter2/x@localhost:6379/0"),
        ("REJOIN_REDIS_URL", "redis://:hunter2@localhost/0?socket_timeout=x"),
        ("REJOIN_DATABASE_URL", "postgres://me:hunter2@localhost/rejoin"),
    ],
)
def test_a_refused_address_gives_its_password_away_nowhere(
    monkeypatch: pytest.MonkeyPatch, name: str, url: str
) -> None:
    monkeypatch.setenv(name, url)
    with pytest.raises(SettingsError, match=rf"^{name}: (write|it cannot)") as refused:
        load_settings()
    assert "hunter2" not in "".join(traceback.format_exception(refused.value))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.0.1", "localhost", "::1", "[::1]"])
def test_a_loopback_host_is_taken(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    monkeypatch.setenv("REJOIN_HOST", host)
    assert load_settings().host == host
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host", ["", "0.0.0.0", "::", "10.0.0.1", "127.0.0.1.example.org", "localhost.example.org"]
)
def test_any_other_host_is_open_to_others(host: str) -> None:
    assert not is_loopback(host)


def test_an_empty_variable_is_as_good_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in DEFAULTS:
        monkeypatch.setenv(name, "")
    assert load_settings() == Settings()
    assert load_settings().port == 8000


@pytest.mark.parametrize(
    ("value", "origins"),
    [
        ("http://a.example", ("http://a.example",)),
        ("http://a.example, http://b.example,", ("http://a.example", "http://b.example")),
        (" , ", ()),
        ("*", ("*",)),
    ],
)
def test_origins_are_a_comma_separated_list(
    monkeypatch: pytest.MonkeyPatch, value: str, origins: tuple[str, ...]
) -> None:
    monkeypatch.setenv("REJOIN_CORS_ORIGINS", value)
    assert load_settings().cors_origins == origins


@pytest.mark.parametrize("url", ["redis://h:1/2", "rediss://:p@h", "unix:///run/redis.sock?db=1"])
def test_a_redis_url_is_taken_as_it_is(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("REJOIN_REDIS_URL", url)
    assert load_settings().redis_url_of("worker") == url


def test_without_a_redis_a_process_says_what_to_set() -> None:
    with pytest.raises(SettingsError, match=r"REJOIN_REDIS_URL.*worker"):
        load_settings().redis_url_of("worker")


def test_a_setting_of_a_later_version_is_told_to_have_no_effect() -> None:
    said = unheeded({"REJOIN_JWT_SECRET": "hush"})
    assert len(said) == 1
    assert "REJOIN_JWT_SECRET" in said[0]
    assert "hush" not in said[0]


def test_a_misspelt_setting_is_told_with_the_one_meant() -> None:
    (said,) = unheeded({"REJOIN_LEASE_SECOND": "1"})
    assert "REJOIN_LEASE_SECOND " in said
    assert "REJOIN_LEASE_SECONDS?" in said


def test_known_settings_and_strangers_are_not_talked_about() -> None:
    assert unheeded({"REJOIN_PORT": "1", "PATH": "/bin", "OPENAI_API_KEY": "k"}) == []

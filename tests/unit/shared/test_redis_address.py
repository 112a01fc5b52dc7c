"""REJOIN_REDIS_URL: what it may say, and what is Rejoin's own to set whatever it says."""

import pytest

from rejoin.shared.connections import open_redis
from rejoin.shared.errors import SettingsError
from rejoin.shared.redis_address import read_redis_address
from rejoin.shared.settings import load_settings

OTHERS = (
    "socket_timeout=0.1&socket_connect_timeout=60&timeout=60&max_connections=1&retry_on_timeout=no"
    "&socket_keepalive=no&decode_responses=true&encoding=utf-16&protocol=3&retry=3"
    "&retry_on_error=x&parser_class=x&credential_provider=x"
)


@pytest.mark.parametrize("place", ["redis://h:1/2", "rediss://:p@h", "unix:///run/redis.sock"])
def test_what_rejoin_sets_itself_is_passed_over(place: str) -> None:
    said = open_redis(f"{place}?{OTHERS}").connection_pool.connection_kwargs
    meant = open_redis(place).connection_pool.connection_kwargs
    unlike = {"retry", "connection_class"}
    assert {name: said[name] for name in said if name not in unlike} == {
        name: meant[name] for name in meant if name not in unlike
    }
    assert said["retry"]._retries == meant["retry"]._retries


def test_where_and_as_whom_is_taken() -> None:
    address = read_redis_address(
        "rediss://me:p%40@h:1/2?ssl_cert_reqs=none&ssl_check_hostname=false&client_name=r"
    )
    address.pop("connection_class")
    assert address == {
        "host": "h", "port": 1, "db": 2, "username": "me", "password": "p@", "client_name": "r",
        "ssl_cert_reqs": "none", "ssl_check_hostname": False,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("redis://:hush@h?tiemout=3", r"^REJOIN_REDIS_URL: there is no option tiemout$"),
        ("redis://:hush@h?ssl_cert_reqs=none", r"no option ssl_cert_reqs: write rediss://"),
        ("redis://:hu/sh@h", r"^REJOIN_REDIS_URL: it cannot be read"),
    ],
)
def test_what_it_is_not_is_said_without_its_password(
    monkeypatch: pytest.MonkeyPatch, url: str, words: str
) -> None:
    monkeypatch.setenv("REJOIN_REDIS_URL", url)
    with pytest.raises(SettingsError, match=words) as refused:
        load_settings()
    assert "hush" not in str(refused.value)

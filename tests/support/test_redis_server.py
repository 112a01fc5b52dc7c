"""The Redis that tests break: it keeps, loses and stalls as it is told to."""

import pytest
import redis

from tests.support import redis_server as support
from tests.support.redis_server import RedisServer, redis_server


def test_a_killed_server_with_a_log_of_its_own_keeps_everything(own_redis: RedisServer) -> None:
    with own_redis.client() as client:
        client.set("a", "1")
    own_redis.restart()
    with own_redis.client() as client:
        assert client.get("a") == b"1"


def test_a_killed_server_without_one_loses_everything_and_keeps_its_port() -> None:
    with redis_server() as server:
        port = server.port
        with server.client() as client:
            client.set("a", "1")
        server.restart()
        with server.client() as client:
            assert (server.port, client.get("a")) == (port, None)


def test_a_paused_server_answers_only_after_it_is_resumed(own_redis: RedisServer) -> None:
    quick = redis.Redis(host="127.0.0.1", port=own_redis.port, socket_timeout=0.2)
    with quick, own_redis.paused(), pytest.raises(redis.TimeoutError):
        quick.ping()
    with own_redis.client() as client:
        assert client.ping()


def test_without_a_binary_a_test_is_skipped_here_and_fails_on_ci(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(support, "find_binary", lambda: None)
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="no redis-server"):
        support.need_binary()
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="must run"):
        support.need_binary()


def test_the_clean_url_is_an_empty_server(clean_redis_url: str) -> None:
    with redis.Redis.from_url(clean_redis_url) as client:
        assert client.dbsize() == 0

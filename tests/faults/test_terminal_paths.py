"""arq ends a job by itself in ways that call no function: the log still ends with `failed`."""

import json
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.conftest import SETTINGS
from tests.support.caller import (
    CODES,
    Caller,
    assert_problem,
    assert_whole_log,
    caller,
    visible_text,
)
from tests.support.processes import Stack, rejoin_stack
from tests.support.redis_server import RedisServer
from tests.support.sse_reader import SseFrame, open_tail

QUEUE = "rejoin:queue"


@pytest.fixture
def idle_stack(own_redis: RedisServer) -> Iterator[Stack]:
    """No worker; unlike elsewhere one may log a traceback: arq does so of a job it cannot read."""
    with rejoin_stack(own_redis, workers=0, settings=SETTINGS) as running:
        yield running


def job_key(message_id: str) -> str:
    return f"arq:job:{message_id}"


async def assert_fails(api: Caller, message_id: str) -> list[SseFrame]:
    async with open_tail(api.events(message_id)) as tail:
        frames = await tail.read_until_end()
    assert_whole_log(frames)
    end = frames[-1]
    assert end.event == "failed"
    assert set(end.data) == {"code", "message", "retryable", "status"}
    assert end.data["code"] in CODES
    assert isinstance(end.data["message"], str)
    assert end.data["message"]
    assert isinstance(end.data["retryable"], bool)
    seen = await api.snapshot(message_id)
    assert (seen["status"], seen["error"]["code"]) == ("failed", end.data["code"])
    assert seen["last_event_id"] == end.id
    assert_problem(await api.cancel(message_id), 409)
    return frames


async def tampered(stack: Stack, tamper: Callable[[Any, str], object]) -> None:
    """Accept a message, spoil its job, start a worker: the log fails and the worker lives."""
    async with caller(stack.url) as api:
        message_id = await api.accepted("never answered")
        with stack.redis.client() as client:
            assert client.zscore(QUEUE, message_id) is not None
            tamper(client, message_id)
        stack.new_worker().start()
        await assert_fails(api, message_id)
        assert visible_text(await api.log(await api.accepted("answered"))) == "answered"
        with stack.redis.client() as client:
            assert client.zscore(QUEUE, message_id) is None


async def test_a_job_whose_key_is_gone(idle_stack: Stack) -> None:
    await tampered(idle_stack, lambda client, name: client.delete(job_key(name)))


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\x00\xff\xfe",
        b"not json",
        b"null",
        b"[]",
        b"{}",
        b'"text"',
        b'{"t": 1}',
        b'{"t": null, "f": null, "a": null, "k": null, "et": null}',
        b"[" * 5000,
    ],
)
async def test_a_job_that_cannot_be_read(idle_stack: Stack, payload: bytes) -> None:
    await tampered(idle_stack, lambda client, name: client.set(job_key(name), payload))


async def test_a_job_of_an_unknown_function(idle_stack: Stack) -> None:
    def rename(client: Any, message_id: str) -> None:
        job = json.loads(client.get(job_key(message_id)))
        client.set(job_key(message_id), json.dumps(job | {"f": "no_such_function"}))

    await tampered(idle_stack, rename)


@pytest.mark.parametrize("change", [{"a": []}, {"a": [1, 2, 3]}, {"k": {"x": 1}}])
async def test_a_job_with_other_arguments(idle_stack: Stack, change: dict[str, Any]) -> None:
    def change_it(client: Any, message_id: str) -> None:
        job = json.loads(client.get(job_key(message_id)))
        client.set(job_key(message_id), json.dumps(job | change))

    await tampered(idle_stack, change_it)


async def test_a_job_whose_tries_are_used_up(idle_stack: Stack) -> None:
    await tampered(idle_stack, lambda client, name: client.set(f"arq:retry:{name}", 10**9))


async def test_a_request_that_is_gone(idle_stack: Stack) -> None:
    await tampered(idle_stack, lambda client, name: client.delete(f"rejoin:{{{name}}}:request"))


class _Touch:
    """Pickled, it makes a file when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return Path.touch, (self.path,)


async def test_a_pickled_job_is_never_run(idle_stack: Stack, tmp_path: Path) -> None:
    trap = tmp_path / "run"
    payload = pickle.dumps({"t": 1, "f": _Touch(trap), "a": (), "k": {}, "et": 0})
    await tampered(idle_stack, lambda client, name: client.set(job_key(name), payload))
    assert not trap.exists()


async def test_the_job_carries_the_messages_id_and_nothing_of_its_text(idle_stack: Stack) -> None:
    async with caller(idle_stack.url) as api:
        message_id = await api.accepted("a secret")
    with idle_stack.redis.client() as client:
        job = client.get(job_key(message_id))
    assert json.loads(job)["a"] == [message_id]
    assert b"secret" not in job


async def test_a_job_that_is_no_message_harms_nobody(idle_stack: Stack) -> None:
    async with caller(idle_stack.url) as api:
        with idle_stack.redis.client() as client:
            for junk in ("junk", "", "{}", "0" * 500):
                client.zadd(QUEUE, {junk: 0})
            client.lpush("rejoin:wake", "junk")
        idle_stack.new_worker().start()
        assert visible_text(await api.log(await api.accepted("still here"))) == "still here"


async def test_neither_prompt_nor_answer_is_logged(stack: Stack) -> None:
    async with caller(stack.url) as api:
        await api.log(await api.accepted("tell nobody of this"))
    for process in (stack.api, stack.worker):
        assert "nobody" not in process.said()

"""arq ends a job by itself in ways that call no function: the log still ends with `failed`."""

import json
import pickle
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
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
from tests.support.messages import until_true
from tests.support.processes import Stack, rejoin_stack
from tests.support.redis_server import redis_server
from tests.support.sse_reader import open_tail

QUEUE = "rejoin:queue"
TRAP = Path("made-by-a-pickle")


class _Trap:
    """Pickled, it makes a file where it is read."""

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return Path.touch, (TRAP,)


def job_key(message_id: str) -> str:
    return f"arq:job:{message_id}"


def payload(job: bytes) -> Callable[[Any, str], object]:
    """Put other bytes in the job's place."""
    return lambda client, message_id: client.set(job_key(message_id), job)


def change(**fields: Any) -> Callable[[Any, str], object]:
    """Put other fields into the job."""

    def tamper(client: Any, message_id: str) -> None:
        job = json.loads(client.get(job_key(message_id)))
        client.set(job_key(message_id), json.dumps(job | fields))

    return tamper


TAMPERS: dict[str, Callable[[Any, str], object]] = {
    "the job is gone": lambda client, message_id: client.delete(job_key(message_id)),
    "the request is gone": lambda client, name: client.delete(f"rejoin:{{{name}}}:request"),
    "the function is unknown": change(f="no_such_function"),
    "no arguments": change(a=[]),
    "other arguments": change(a=[1, 2, 3]),
    "keyword arguments": change(k={"x": 1}),
    "empty": payload(b""),
    "not UTF-8": payload(b"\x00\xff\xfe"),
    "not JSON": payload(b"not json"),
    "null": payload(b"null"),
    "a list": payload(b"[]"),
    "an empty object": payload(b"{}"),
    "a string": payload(b'"text"'),
    "some fields": payload(b'{"t": 1}'),
    "null fields": payload(b'{"t": null, "f": null, "a": null, "k": null, "et": null}'),
    "deep": payload(b"[" * 5000),
    "a pickle": payload(pickle.dumps({"t": 1, "f": _Trap(), "a": (), "k": {}, "et": 0})),
}


class Tampered:
    """A stack whose worker met each of the tampered jobs; `ids` by the kind."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.ids: dict[str, str] = {}

    def accept_and_tamper(self) -> None:
        """Accept a message for each kind while no worker runs, spoil its job, start one."""
        body = {"model": "demo/echo?rate=0", "input": "never answered"}
        with (
            httpx.Client(base_url=self.stack.url, trust_env=False) as http,
            self.stack.redis.client() as client,
        ):
            for kind, tamper in TAMPERS.items():
                message_id = http.post("/api/messages", json=body).json()["message_id"]
                assert client.zscore(QUEUE, message_id) is not None
                tamper(client, message_id)
                self.ids[kind] = message_id
        self.stack.new_worker().start()


@pytest.fixture(scope="module")
def tampered() -> Iterator[Tampered]:
    """Unlike elsewhere a worker may log a traceback: arq does so of a job it cannot read."""
    with (
        redis_server() as redis,
        rejoin_stack(redis, workers=0, settings=SETTINGS) as stack,
    ):
        made = Tampered(stack)
        made.accept_and_tamper()
        yield made


@pytest.fixture
async def api(tampered: Tampered) -> AsyncIterator[Caller]:
    """A caller of that stack."""
    async with caller(tampered.stack.url) as speaker:
        yield speaker


@pytest.mark.parametrize("kind", TAMPERS)
async def test_the_log_ends_with_failed(tampered: Tampered, api: Caller, kind: str) -> None:
    message_id = tampered.ids[kind]
    async with open_tail(api.events(message_id)) as tail:
        frames = await tail.read_until_end(within=6)
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
    with tampered.stack.redis.client() as client:  # the job goes after the end, and after the turn
        await until_true(lambda: client.zscore(QUEUE, message_id) is None)


async def test_the_worker_lives_through_all_of_them(tampered: Tampered, api: Caller) -> None:
    assert visible_text(await api.log(await api.accepted("answered"))) == "answered"
    assert tampered.stack.worker.running


def test_a_pickled_job_is_never_run(tampered: Tampered) -> None:
    assert not list(tampered.stack.worker.log.parent.rglob(TRAP.name))


async def test_a_job_that_is_no_message_harms_nobody(tampered: Tampered, api: Caller) -> None:
    with tampered.stack.redis.client() as client:
        for junk in ("junk", "", "{}", "0" * 500):
            client.zadd(QUEUE, {junk: 0})
        client.lpush("rejoin:wake", "junk")
    assert visible_text(await api.log(await api.accepted("still here"))) == "still here"
    assert tampered.stack.worker.running


async def test_a_job_carries_the_messages_id_and_nothing_of_its_text(idle_stack: Stack) -> None:
    async with caller(idle_stack.url) as api:
        message_id = await api.accepted("a secret")
    with idle_stack.redis.client() as client:
        job = client.get(job_key(message_id))
    assert json.loads(job)["a"] == [message_id]
    assert b"secret" not in job


async def test_neither_prompt_nor_answer_is_logged(stack: Stack) -> None:
    async with caller(stack.url) as api:
        await api.log(await api.accepted("tell nobody of this"))
    for process in (stack.api, stack.worker):
        assert "nobody" not in process.said()

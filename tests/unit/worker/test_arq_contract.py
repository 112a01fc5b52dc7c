"""The parts of arq that the worker stands on, which arq promises to nobody: are they as they were?

A failure here means that arq has changed under us. Read its worker.py again before mending this.
"""

import asyncio
import inspect
from importlib.metadata import version
from typing import Final

import arq.constants
import arq.jobs
import pytest
from arq.connections import ArqRedis
from arq.worker import Worker, func
from fakeredis import FakeAsyncRedis

from rejoin.shared import jobs, keys
from rejoin.worker.arq_worker import LeasedWorker

JOB: Final[dict[str, object]] = {"t": None, "f": jobs.FUNCTION, "a": ["m"], "k": {}, "et": 1_000}


def arguments(method: object) -> list[str]:
    assert callable(method)
    return list(inspect.signature(method).parameters)


def test_the_version_is_one_that_was_read() -> None:
    assert version("arq").split(".")[:2] == ["0", "28"]


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("main", ["self"]),
        ("close", ["self"]),
        ("run_job", ["self", "job_id", "score"]),
    ],
)
def test_a_method_that_is_called_or_replaced_has_its_name_and_parameters(
    name: str, parameters: list[str]
) -> None:
    method = getattr(Worker, name)
    assert inspect.iscoroutinefunction(method)
    assert arguments(method) == parameters


def test_nothing_of_arqs_that_starts_runs_or_ends_a_job_is_left() -> None:
    assert {"main", "close", "run_job"} <= vars(LeasedWorker).keys()
    for name in ("finish_job", "finish_failed_job"):
        callers = {caller for caller, method in vars(Worker).items() if _calls(method, name)}
        assert callers == {"run_job"}
    assert {caller for caller, method in vars(Worker).items() if _calls(method, "run_job")} == {
        "start_jobs"
    }


def _calls(method: object, name: str) -> bool:
    return inspect.isfunction(method) and f"self.{name}(" in inspect.getsource(method)


@pytest.mark.parametrize(
    "parameter",
    [
        "functions",
        "queue_name",
        "redis_pool",
        "max_jobs",
        "handle_signals",
        "job_serializer",
        "job_deserializer",
    ],
)
def test_the_constructor_takes_what_it_is_given(parameter: str) -> None:
    assert parameter in arguments(Worker.__init__)


async def said(ctx: dict[str, object], message_id: str) -> None:
    """A job function that does nothing."""


async def test_the_attributes_are_there_and_mean_what_they_meant() -> None:
    async with FakeAsyncRedis() as redis:
        worker = Worker(
            functions=[func(said, name=jobs.FUNCTION)],
            queue_name=keys.QUEUE,
            redis_pool=ArqRedis(redis.connection_pool),
            max_jobs=7,
            handle_signals=False,
        )
        assert worker.job_counter == 0
        assert worker.tasks == {}
        assert worker.max_jobs == 7
        assert worker.loop is asyncio.get_running_loop()
        assert isinstance(worker.pool, ArqRedis)
        assert set(worker.functions) == {jobs.FUNCTION}


def test_the_names_of_arqs_keys_are_ours() -> None:
    assert keys.job("m") == arq.constants.job_key_prefix + "m"
    assert keys.job_tries("m") == arq.constants.retry_key_prefix + "m"


def test_arq_reads_the_jobs_that_we_write_and_writes_what_we_read() -> None:
    ours = jobs.encode(JOB)
    name, args, kwargs, tries, at = arq.jobs.deserialize_job_raw(ours, deserializer=jobs.decode)
    assert [name, args, kwargs, tries, at] == ["run_message", ["m"], {}, None, 1_000]
    theirs = arq.jobs.serialize_job(jobs.FUNCTION, ("m",), {}, None, 1_000, serializer=jobs.encode)
    assert theirs is not None
    assert jobs.decode(theirs) == JOB


ARQ_CANNOT = (b"", b"\x80\x04K\x01.", b"\xff", b"[]", b"{}", b"null", b"[" * 5000)
NOT_THIS: Final[tuple[dict[str, object], ...]] = (
    {"f": "of_a_later_version"},
    {"a": []},
    {"a": ["another"]},
    {"k": {"x": 1}},
)


def test_a_job_that_arq_cannot_decode_is_none_of_ours() -> None:
    for stored in ARQ_CANNOT:
        with pytest.raises(arq.jobs.DeserializationError):
            arq.jobs.deserialize_job_raw(stored, deserializer=jobs.decode)
        assert jobs.conversation_of(stored, "m") is None


def test_only_a_job_of_this_message_and_this_function_runs_it() -> None:
    for fields in NOT_THIS:
        assert jobs.conversation_of(jobs.encode(JOB | fields), "m") is None


def test_a_job_names_its_conversation_unless_an_older_version_queued_it() -> None:
    named = jobs.encode(JOB | {"conversation_id": "c"})
    assert jobs.conversation_of(named, "m") == "c"
    _, args, *_ = arq.jobs.deserialize_job_raw(named, deserializer=jobs.decode)
    assert [*args] == ["m"]
    assert jobs.conversation_of(jobs.encode(JOB), "m") == ""

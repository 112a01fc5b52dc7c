"""The parts of arq that the worker stands on, which arq promises to nobody: are they as they were?

A failure here means that arq has changed under us. Read its worker.py again before mending this.
"""

import asyncio
import inspect
from importlib.metadata import version

import arq.constants
import arq.jobs
import pytest
from arq.connections import ArqRedis
from arq.worker import Function, Worker, func
from fakeredis import FakeAsyncRedis

from rejoin.shared import keys, queue
from rejoin.worker.arq_worker import MAX_TRIES, LeasedWorker, run_message_function

JOB = {"t": None, "f": queue.JOB_FUNCTION, "a": ["m"], "k": {}, "et": 1_000}


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
        (
            "finish_job",
            [
                "self",
                "job_id",
                "finish",
                "result_data",
                "result_timeout_s",
                "keep_result_forever",
                "incr_score",
                "keep_in_progress",
            ],
        ),
        ("finish_failed_job", ["self", "job_id", "result_data"]),
    ],
)
def test_a_method_that_is_called_or_replaced_has_its_name_and_parameters(
    name: str, parameters: list[str]
) -> None:
    method = getattr(Worker, name)
    assert inspect.iscoroutinefunction(method)
    assert arguments(method) == parameters


def test_what_is_replaced_is_all_that_arq_does_at_a_jobs_end() -> None:
    ends = {name for name in vars(Worker) if name.startswith("finish_")}
    assert ends == {"finish_job", "finish_failed_job"}
    assert ends | {"main", "close"} <= vars(LeasedWorker).keys()


def test_run_job_ends_every_job_through_what_is_replaced() -> None:
    source = inspect.getsource(Worker.run_job)
    assert source.count("self.finish_failed_job(") == 2  # of job_failed, and of too many tries
    assert source.count("self.finish_job(") == 1
    assert source.count("await job_failed(") == 4  # expired, not decoded, aborted, not found


@pytest.mark.parametrize(
    "parameter",
    [
        "functions",
        "queue_name",
        "redis_pool",
        "max_jobs",
        "job_timeout",
        "keep_result",
        "max_tries",
        "poll_delay",
        "handle_signals",
        "log_results",
        "job_serializer",
        "job_deserializer",
    ],
)
def test_the_constructor_takes_what_it_is_given(parameter: str) -> None:
    assert parameter in arguments(Worker.__init__)


async def arq_worker(redis: FakeAsyncRedis, **methods: object) -> Worker:
    """A worker of arq's own, with some of its methods replaced as LeasedWorker does."""
    made = type("Replaced", (Worker,), methods)(
        functions=[run_message_function(said)],
        queue_name=keys.QUEUE,
        redis_pool=ArqRedis(
            redis.connection_pool,
            job_serializer=queue.encode_job,
            job_deserializer=queue.decode_job,
            default_queue_name="",
        ),
        max_jobs=7,
        keep_result=0,
        max_tries=MAX_TRIES,
        handle_signals=False,
        log_results=False,
        job_serializer=queue.encode_job,
        job_deserializer=queue.decode_job,
    )
    assert isinstance(made, Worker)
    return made


async def said(ctx: dict[str, object], message_id: str) -> None:
    """A job function that does nothing."""


async def test_the_attributes_are_there_and_mean_what_they_meant() -> None:
    async with FakeAsyncRedis() as redis:
        worker = await arq_worker(redis)
        assert worker.job_counter == 0
        assert worker.tasks == {}
        assert worker.job_tasks == {}
        assert (worker.max_jobs, worker.max_tries) == (7, MAX_TRIES)
        assert worker.loop is asyncio.get_running_loop()
        assert isinstance(worker.pool, ArqRedis)
        assert set(worker.functions) == {queue.JOB_FUNCTION}


def test_the_job_function_has_its_name_and_no_bound_of_arqs() -> None:
    function = run_message_function(said)
    assert isinstance(function, Function)
    assert (function.name, function.max_tries) == ("run_message", MAX_TRIES)
    assert {"coroutine", "name", "max_tries"} <= set(arguments(func))


def test_the_names_of_arqs_keys_are_ours() -> None:
    assert keys.job("m") == arq.constants.job_key_prefix + "m"
    assert keys.job_tries("m") == arq.constants.retry_key_prefix + "m"


def test_arq_reads_the_jobs_that_we_write_and_writes_what_we_read() -> None:
    ours = queue.encode_job(JOB)
    name, args, kwargs, tries, at = arq.jobs.deserialize_job_raw(
        ours, deserializer=queue.decode_job
    )
    assert (name, args, kwargs, tries, at) == ("run_message", ["m"], {}, None, 1_000)
    theirs = arq.jobs.serialize_job(
        queue.JOB_FUNCTION, ("m",), {}, None, 1_000, serializer=queue.encode_job
    )
    assert theirs is not None
    assert queue.decode_job(theirs) == JOB


def test_a_job_that_we_cannot_decode_is_one_that_arq_cannot() -> None:
    for stored in (b"\x80\x04K\x01.", b"[]", b"{}"):
        with pytest.raises(arq.jobs.DeserializationError):
            arq.jobs.deserialize_job_raw(stored, deserializer=queue.decode_job)


ENDED_BY_ARQ = {
    "expired": None,
    "not decoded": b"\x80\x04K\x01.",
    "not found": queue.encode_job(JOB | {"f": "of_a_later_version"}),
    "too many tries": queue.encode_job(JOB | {"t": MAX_TRIES + 1}),
}


@pytest.mark.parametrize("why", ENDED_BY_ARQ)
async def test_a_job_that_arq_gives_up_comes_to_finish_failed_job(why: str) -> None:
    heard: list[str] = []

    async def finish_failed_job(_: Worker, job_id: str, result_data: bytes | None) -> None:
        heard.append(job_id)

    async with FakeAsyncRedis() as redis:
        worker = await arq_worker(redis, finish_failed_job=finish_failed_job)
        job = ENDED_BY_ARQ[why]
        if job is not None:
            await redis.set(keys.job("m"), job)
        await worker.run_job("m", 0)
        assert heard == ["m"]
        assert await redis.get(keys.job_tries("m")) is not None  # it counts, and cleans nothing


async def test_a_job_that_ran_comes_to_finish_job_and_leaves_nothing_but_its_count() -> None:
    heard: list[tuple[str, bool]] = []

    async def finish_job(_: Worker, job_id: str, finish: bool, *rest: object) -> None:
        heard.append((job_id, finish))

    async with FakeAsyncRedis() as redis:
        worker = await arq_worker(redis, finish_job=finish_job)
        await redis.set(keys.job("m"), queue.encode_job(JOB))
        await worker.run_job("m", 0)
        assert heard == [("m", True)]
        assert sorted(await redis.keys()) == [keys.job("m").encode(), keys.job_tries("m").encode()]
        assert await redis.ttl(keys.job_tries("m")) > 0
        assert worker.job_counter == 0  # run_job leaves the counting to its caller
        assert worker.tasks == {}

"""The baseline for workers: arq as it comes, and a job as a tutorial would write it.

`python -m tests.bench.baseline_arq REDIS_URL MAX_JOBS BASE_URL` runs one worker. Only the limits
are raised, so that it can run hundreds of jobs at all: `max_jobs`, and `queue_read_limit`, without
which 100 running jobs keep every other from being seen.
"""

import asyncio
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from subprocess import Popen
from typing import Any, Final

import openai
from arq import func
from arq.connections import RedisSettings
from arq.worker import Worker

LATENCIES: Final = "bench:latencies"
STARTED: Final = "bench:started"
_JOB_SECONDS: Final = 3600


async def start(ctx: dict[str, Any], asked_ns: int) -> None:
    """Tell how long the job waited."""
    await ctx["redis"].rpush(LATENCIES, time.monotonic_ns() - asked_ns)


async def hold(ctx: dict[str, Any]) -> None:
    """Take a slot, as a long answer does."""
    await ctx["redis"].incr(STARTED)
    await asyncio.sleep(_JOB_SECONDS)


async def relay(ctx: dict[str, Any], message_id: str, model: str) -> None:
    """Call the model through its SDK and add each chunk to the log."""
    client: openai.AsyncOpenAI = ctx["client"]
    answer = await client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": "bench"}], stream=True
    )
    sequence = 0
    async for chunk in answer:
        if chunk.choices and (text := chunk.choices[0].delta.content):
            frame = f'event: text\ndata: {{"text":"{text}"}}\nid: 1-{sequence}\n\n'
            await ctx["redis"].xadd(f"rejoin:{{{message_id}}}:log", {"f": frame})
            sequence += 1


@contextmanager
def arq_workers(
    redis_url: str, count: int, max_jobs: int, base_url: str = "-"
) -> Iterator[Sequence[Popen[bytes]]]:
    """Run so many, ended with the block."""
    command = [sys.executable, "-m", "tests.bench.baseline_arq", redis_url, str(max_jobs), base_url]
    with ExitStack() as stack:
        workers = []
        for _ in range(count):
            worker = Popen(command)
            stack.callback(worker.wait, 10)
            stack.callback(worker.kill)  # it would wait for its jobs
            workers.append(worker)
        yield workers


def main(redis_url: str, max_jobs: int, base_url: str) -> None:
    """Run a worker until it is killed."""
    functions = [func(job, timeout=_JOB_SECONDS) for job in (start, hold, relay)]
    worker = Worker(
        functions,
        redis_settings=RedisSettings.from_dsn(redis_url),
        max_jobs=max_jobs,
        queue_read_limit=100_000,
        ctx={"client": openai.AsyncOpenAI(api_key="none", base_url=base_url, max_retries=0)},
    )
    worker.run()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])

"""One chaos run: plays the plan, waits until all has settled, and checks everything."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Final

import httpx

from tests.chaos.checks import parse_log, wrong_log, wrong_reasoning, wrong_tail
from tests.chaos.cluster import Cluster, open_doors
from tests.chaos.faults import Faults
from tests.chaos.leftovers import wrong_keys, wrong_processes, wrong_queue
from tests.chaos.plan import Plan
from tests.chaos.senders import Callers, Message
from tests.chaos.tails import Tail
from tests.chaos.tally import Tally

SETTLE_SECONDS: Final = 60.0  # from the last fault until every message has ended
_LOOK_SECONDS: Final = 0.1


@dataclass(slots=True)
class Run:
    """What a run came to."""

    plan: Plan
    tally: Tally = field(default_factory=Tally)
    messages: list[Message] = field(default_factory=list)
    tails: list[Tail] = field(default_factory=list)
    settled_seconds: float = 0.0
    late_seconds: float = 0.0  # of this very process, where the machine is too busy to judge by
    seconds: float = 0.0


def play(running: Cluster, plan: Plan) -> Run:
    """Run the plan on a cluster and check what is left."""
    run = Run(plan, messages=[Message(planned) for planned in plan.messages])
    began = time.monotonic()
    asyncio.run(_play(running, run))
    _check(running, run)
    run.seconds = time.monotonic() - began
    return run


async def _play(running: Cluster, run: Run) -> None:
    seed, tally = str(run.plan.seed), run.tally
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=8)
    async with (
        open_doors(running, run.plan.seed) as doors,
        httpx.AsyncClient(timeout=None, limits=limits, trust_env=False) as http,
    ):
        callers = Callers(doors, tally, http)
        faults = Faults(running, doors, tally)
        async with _background(faults.watch()), _background(_note_lateness(run)):
            lives = []
            for message in run.messages:
                tails = [
                    Tail(message, planned, doors, callers, tally, seed)
                    for planned in message.plan.tails
                ]
                run.tails += tails
                life = _live(message, tails, callers, seed)
                lives.append(asyncio.create_task(life, name=str(message.plan.number)))
            await faults.run(run.plan.faults)
            await _settle(lives, run)


async def _live(message: Message, tails: list[Tail], callers: Callers, seed: str) -> None:
    """A message from its POST until its last reader has its end."""
    await asyncio.sleep(message.plan.at)
    twin = [callers.post(message, f"{seed} twin")] if message.plan.twice else []
    await asyncio.gather(callers.post(message, seed), *twin)

    async def cancel() -> None:
        if message.plan.cancel_after is not None:
            await asyncio.sleep(message.plan.cancel_after)
            await callers.cancel(message, seed)

    await asyncio.gather(cancel(), *(tail.run() for tail in tails))


async def _settle(lives: list["asyncio.Task[None]"], run: Run) -> None:
    began = time.monotonic()
    late: set[asyncio.Task[None]] = set()
    if lives:
        _, late = await asyncio.wait(lives, timeout=SETTLE_SECONDS)
    run.settled_seconds = time.monotonic() - began
    for task in late:
        task.cancel()
    results = await asyncio.gather(*lives, return_exceptions=True)
    for message, task, result in zip(run.messages, lives, results, strict=True):
        if task in late:
            run.tally.wrong(f"{message}: not settled {SETTLE_SECONDS} s after the last fault")
        elif result is not None:
            run.tally.wrong(f"{message}: {type(result).__name__}: {result}")


async def _note_lateness(run: Run) -> None:
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + _LOOK_SECONDS
        await asyncio.sleep(_LOOK_SECONDS)
        run.late_seconds = max(run.late_seconds, loop.time() - due)


@contextlib.asynccontextmanager
async def _background(work: "asyncio.Future[None] | object") -> AsyncIterator[None]:
    task = asyncio.ensure_future(work)  # type: ignore[arg-type]
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _check(running: Cluster, run: Run) -> None:
    with running.redis.client() as client:
        run.tally.problems += wrong_queue(client)
        accepted = {message.id for message in run.messages}
        run.tally.problems += wrong_keys(client, accepted)
        logs = {}
        for message in run.messages:
            entries = client.xrange(f"rejoin:{{{message.id}}}:log") if message.id else []
            frames = logs[message.id] = parse_log([fields[b"f"] for _, fields in entries])
            run.tally.problems += [*wrong_log(message, frames), *wrong_reasoning(message, frames)]
            _count(run.tally, frames[-1].data if frames else {}, len(frames))
    for tail in run.tails:
        if tail.ended:
            run.tally.problems += wrong_tail(tail, logs[tail.message.id])
        else:
            run.tally.wrong(f"{tail}: no end, its last event is {tail.last_id}")
    run.tally.problems += wrong_processes(running)


def _count(tally: Tally, end: dict[str, object], events: int) -> None:
    tally.counts["messages"] += 1
    tally.counts[f"ended {end.get('finish_reason') or end.get('code')}"] += 1
    tally.counts["events in logs"] += events

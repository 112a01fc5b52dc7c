"""One chaos run: plays the plan, waits until all has settled, and checks everything."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import httpx

from rejoin.shared.keys import record
from tests.chaos.bill_checks import Bills, wrong_bills
from tests.chaos.checks import parse_log, wrong_log, wrong_reasoning, wrong_tail
from tests.chaos.cluster import Cluster, open_doors
from tests.chaos.faults import Faults
from tests.chaos.lasting import Lasting
from tests.chaos.ledger import Entry, read_ledger
from tests.chaos.leftovers import wrong_keys, wrong_processes, wrong_queue
from tests.chaos.plan import Plan
from tests.chaos.senders import Callers, Message
from tests.chaos.tails import Tail
from tests.chaos.tally import Tally
from tests.chaos.tool_checks import (
    CANCELLED,
    LATE,
    LOST,
    REFUSED,
    read_effects,
    unknown_effects,
    wrong_calls,
    wrong_snapshot,
)
from tests.chaos.waits import Waits
from tests.support.sse_reader import SseFrame

SETTLE_SECONDS: Final = 60.0  # from the last fault until every message has ended
_LOOK_SECONDS: Final = 0.1
_THEN_SECONDS: Final = 0.5  # from a cancel after the step to one at once


@dataclass(slots=True)
class Run:
    """What a run came to."""

    plan: Plan
    tally: Tally = field(default_factory=Tally)
    messages: list[Message] = field(default_factory=list)
    tails: list[Tail] = field(default_factory=list)
    ledger: list[Entry] = field(default_factory=list)
    bills: Bills = field(default_factory=Bills)
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
        waits, lasting = Waits(running.redis, tally), Lasting(running.redis, tally)
        async with (
            _background(faults.watch()),
            _background(_note_lateness(run)),
            _background(waits.watch()),
            _background(lasting.watch()),
        ):
            lives = []
            for message in run.messages:
                tails = [
                    Tail(message, planned, doors, callers, tally, seed)
                    for planned in message.plan.tails
                ]
                run.tails += tails
                life = _live(run, message, tails, callers)
                lives.append(asyncio.create_task(life, name=str(message.plan.number)))
            await faults.run(run.plan.faults)
            await _settle(lives, run)
        run.tally.problems += [
            f"the provider refused a history: {refusal}"
            for refusal in (await http.get(f"{running.provider}/refusals")).json()
        ]
        run.ledger = read_ledger((await http.get(f"{running.provider}/ledger")).json())


async def _live(run: Run, message: Message, tails: list[Tail], callers: Callers) -> None:
    """A message from its POST until its last reader has its end."""
    seed, plan = str(run.plan.seed), message.plan
    await asyncio.sleep(plan.at)
    if plan.follows is None:
        message.prepare("")
    else:
        before = run.messages[plan.follows]
        await before.accepted.wait()
        message.prepare(before.conversation_id)
    twin = [callers.post(message, f"{seed} twin")] if plan.twice else []
    await asyncio.gather(callers.post(message, seed), *twin)

    async def cancel() -> None:
        if plan.cancel_after is not None:
            await asyncio.sleep(plan.cancel_after)
            await callers.cancel(message, seed, after_step=plan.tools.after_step)
            if plan.tools.then_now:
                await asyncio.sleep(_THEN_SECONDS)
                await callers.cancel(message, seed)

    async with _background(_reply(message, callers, seed)) as replies:
        await asyncio.gather(cancel(), *(tail.run() for tail in tails))
        await message.waits.put(None)
        await replies
    if plan.tools.steps:
        await callers.look(message, seed)


async def _reply(message: Message, callers: Callers, seed: str) -> None:
    """Answer the calls that are seen waiting, until there are no more to come."""
    async with asyncio.TaskGroup() as group:
        while (waits := await message.waits.get()) is not None:
            call_id, planned = waits
            for reply in planned.replies:
                group.create_task(callers.reply(message, call_id, reply, seed))


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
async def _background(work: Coroutine[Any, Any, None]) -> AsyncIterator["asyncio.Task[None]"]:
    task = asyncio.create_task(work)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _check(running: Cluster, run: Run) -> None:
    with running.redis.client() as client:
        run.tally.problems += wrong_queue(client)
        accepted = {message.id for message in run.messages}
        run.tally.problems += wrong_keys(client, accepted)
        logs, effects = {}, read_effects(running.effects)
        run.tally.problems += unknown_effects(effects, run.messages)
        run.tally.counts["effects of tools"] = sum(map(len, effects.values()))
        for message in run.messages:
            entries = client.xrange(f"rejoin:{{{message.id}}}:log") if message.id else []
            frames = logs[message.id] = parse_log([fields[b"f"] for _, fields in entries])
            run.tally.problems += [*wrong_log(message, frames), *wrong_reasoning(message, frames)]
            run.tally.problems += wrong_calls(message, frames, effects)
            if message.plan.tools.steps:
                run.tally.problems += wrong_snapshot(message, frames)
            _count(run.tally, frames)
            times = client.hmget(record(message.id), "created_at", "finished_at")
            message.created_at, message.ended_at = (float(at or 0) / 1000 for at in times)
        run.tally.problems += wrong_bills(run.messages, logs, run.ledger, run.bills, run.tally)
    for tail in run.tails:
        if tail.ended:
            run.tally.problems += wrong_tail(tail, logs[tail.message.id])
        else:
            run.tally.wrong(f"{tail}: no end, its last event is {tail.last_id}")
    run.tally.problems += wrong_processes(running)


def _count(tally: Tally, frames: Sequence[SseFrame]) -> None:
    end = frames[-1].data if frames else {}
    tally.counts["messages"] += 1
    tally.counts[f"ended {end.get('finish_reason') or end.get('code')}"] += 1
    tally.counts["events in logs"] += len(frames)
    for frame in frames:
        if frame.event.startswith("tool_"):
            tally.counts[frame.event] += 1
        if frame.event == "tool_error":
            tally.counts[f"calls {_kind(frame.data['error'])}"] += 1


def _kind(error: str) -> str:
    """How a call failed, as far as it matters that each way was gone."""
    kinds = {LATE: "not answered", REFUSED: "refused", LOST: "lost", CANCELLED: "cancelled"}
    return next((kind for words, kind in kinds.items() if words in error), "failed")

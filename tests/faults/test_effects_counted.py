"""Workers are killed around a tool's effect; the effects are counted outside of the program."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from tests.support.caller import Caller, assert_whole_log, caller, data_of, names, until
from tests.support.processes import Stack, Worker, rejoin_stack
from tests.support.provider_server import provider_process
from tests.support.redis_server import redis_server
from tests.support.sse_reader import ENDS, SseFrame, open_tail

TRIALS: Final = 100  # of each policy, each a message with one call
POLICIES: Final = ("fail", "retry", "ask")  # the tools' names too
TOOLS: Final = Path(__file__).parents[1] / "support" / "effect_tools.py"
PATIENCE: Final = 60.0  # seconds: a hundred messages are taken over at once

KILLS: Final = 4
RUN_AT_ONCE: Final = 60
EFFECTS_A_KILL: Final = (20, 40)  # a kill comes after so many more

Logs = dict[str, list[SseFrame]]  # by their messages


class Effects:
    """What was done, as the file outside of the program says."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.touch()

    def keys(self) -> list[str]:
        """The idempotency key of each effect, in order."""
        return self.path.read_text(encoding="ascii").split()

    def by_message(self) -> dict[str, list[str]]:
        """The keys of each message."""
        found: dict[str, list[str]] = {}
        for key in self.keys():
            found.setdefault(key.partition(":")[0], []).append(key)
        return found


class Trials(NamedTuple):
    """An API, a model that calls one tool, and workers that a test starts; its effects."""

    stack: Stack
    effects: Effects
    api: Caller

    async def ask(self, policy: str, *, delay: float = 0) -> list[str]:
        """POST a hundred messages whose model calls the tool of this policy once; their ids."""
        model = f"openai/sim?words=1&delay={delay:g}&calls={policy}"
        return [
            await self.api.accepted("Do it.", model=model, tools=[policy]) for _ in range(TRIALS)
        ]

    async def lost(self, policy: str) -> list[str]:
        """A hundred messages whose effect is done, and whose worker died before the result."""
        with self.worker(HOLDS="1") as worker:
            ids = await self.ask(policy)

            async def done() -> bool:
                return self.effects.by_message().keys() >= set(ids)

            await until(done, within=PATIENCE)
            worker.kill()
        for message_id in ids:
            page = await self.api.page(message_id)
            assert page["events"][-1]["event"] == "tool_start", "this is no trial"
        self.assert_done(ids, 1)
        return ids

    @contextmanager
    def worker(self, **settings: str) -> Iterator[Worker]:
        """Start a worker; it is killed with the block."""
        worker = self.stack.new_worker(**settings).start()
        try:
            yield worker
        finally:
            worker.kill()

    async def logs(self, ids: Sequence[str]) -> Logs:
        """The logs of messages that end: each whole, with one call that ended once."""
        read = [self.api.log(message_id, within=PATIENCE) for message_id in ids]
        found = dict(zip(ids, await asyncio.gather(*read), strict=True))
        for message_id, frames in found.items():
            assert_whole_log(frames)
            assert frames[-1].event == "done", frames[-1]
            assert frames[-1].data["finish_reason"] == "stop"
            (call,) = (await self.api.snapshot(message_id))["tool_calls"]
            assert call["ended"]
            (made,) = data_of(frames, "tool_call")
            (ended,) = [*data_of(frames, "tool_result"), *data_of(frames, "tool_error")]
            assert made["tool_call_id"] == ended["tool_call_id"] == call["tool_call_id"]
        return found

    def assert_done(self, ids: Sequence[str], *times: int) -> None:
        """Check that each message's effect was done so many times, under one key of its own."""
        found = self.effects.by_message()
        for message_id in ids:
            keys = found.get(message_id, [])
            assert len(keys) in times, f"{len(keys)} effects of {message_id}"
            assert set(keys) <= {f"{message_id}:1:call_0"}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stack, Effects]]:
    effects = Effects(tmp_path_factory.mktemp("outside") / "effects")
    with redis_server() as redis, provider_process() as base_url:
        settings = {
            "OPENAI_BASE_URL": base_url,
            "REJOIN_TOOLS": str(TOOLS),
            "EFFECTS": str(effects.path),
            "REJOIN_MAX_ATTEMPTS": "100",
            "REJOIN_LEASE_SECONDS": "2",  # kept with a hundred messages on a busy machine too
        }
        with rejoin_stack(redis, workers=0, settings=settings) as stack:
            yield stack, effects
            stack.assert_no_traceback()


@pytest.fixture
async def trials(running: tuple[Stack, Effects]) -> AsyncIterator[Trials]:
    async with caller(running[0].url) as api:
        yield Trials(*running, api)


async def test_a_call_that_fails_where_nobody_knows_is_never_run_again(trials: Trials) -> None:
    ids = await trials.lost("fail")
    with trials.worker():
        logs = await trials.logs(ids)
    trials.assert_done(ids, 1)
    for frames in logs.values():
        assert "outcome unknown" in data_of(frames, "tool_error")[0]["error"]
        assert names(frames).count("tool_start") == 1
        assert names(frames)[-4:] == ["text", "step", "usage", "done"]  # the model went on


async def test_a_call_that_is_retried_runs_under_its_key_and_has_one_result(
    trials: Trials,
) -> None:
    ids = await trials.lost("retry")
    with trials.worker():
        logs = await trials.logs(ids)
    for frames in logs.values():
        assert [ended["result"] for ended in data_of(frames, "tool_result")] == ["done"]
    trials.assert_done(ids, 2, 3)  # 3: where the machine was too busy to keep a lease


async def test_a_call_that_is_asked_about_runs_again_for_a_person_alone(trials: Trials) -> None:
    ids = await trials.lost("ask")
    approved, refused = ids[::2], ids[1::2]
    with trials.worker():
        for message_id in ids:
            await until(partial(_waits, trials.api, message_id), within=PATIENCE)
        trials.assert_done(ids, 1)
        for message_id in ids:
            await _say(trials.api, message_id, "call_0", approve=message_id in approved)
        logs = await trials.logs(ids)
    for message_id in approved:
        assert data_of(logs[message_id], "tool_result")[0]["result"] == "done"
    for message_id in refused:
        assert "refused" in data_of(logs[message_id], "tool_error")[0]["error"]
    trials.assert_done(approved, 2)
    trials.assert_done(refused, 1)


async def test_workers_killed_at_any_instant_do_nothing_twice_in_silence(trials: Trials) -> None:
    settings = {"PAUSE": "0.3", "REJOIN_MAX_JOBS": str(RUN_AT_ONCE), "REJOIN_LEASE_SECONDS": "0.3"}
    ids = {policy: await trials.ask(policy, delay=0.1) for policy in POLICIES}
    person = asyncio.gather(*(_consents(trials.api, message_id) for message_id in ids["ask"]))
    worker = trials.stack.new_worker(**settings)
    for _ in range(KILLS):
        done = len(trials.effects.keys()) + random.randint(*EFFECTS_A_KILL)
        await asyncio.to_thread(worker.start)
        await until(partial(_reached, trials.effects, done), within=PATIENCE)
        worker.kill()
    await asyncio.to_thread(worker.start)
    consents = dict(zip(ids["ask"], await person, strict=True))
    logs = {policy: await trials.logs(ids[policy]) for policy in POLICIES}
    worker.kill()

    effects = trials.effects.by_message()
    for frames_of in logs.values():
        for message_id, frames in frames_of.items():
            done = len(effects.get(message_id, []))
            assert done <= names(frames).count("tool_start"), "an effect that the log does not tell"
            assert done >= names(frames).count("tool_result"), "a result of nothing"
    trials.assert_done(ids["fail"], 0, 1)
    for message_id, said in consents.items():
        trials.assert_done([message_id], *range(said + 2))
    for frames in logs["retry"].values():
        assert names(frames).count("tool_result") == 1
    _assert_all_windows_were_met(logs["fail"], effects)


def _assert_all_windows_were_met(logs: Logs, effects: dict[str, list[str]]) -> None:
    """Some lost their worker before the effect, some before the result, some after it."""
    met: Counter[str] = Counter()
    for message_id, frames in logs.items():
        last = ""
        for frame in frames:
            if frame.event == "reset" and last == "tool_start":
                met["before the result" if message_id in effects else "before the effect"] += 1
            elif frame.event == "reset" and last == "tool_result":
                met["after the result"] += 1
            if frame.event.startswith("tool_"):
                last = frame.event
    assert len(met) == 3, met


async def _consents(api: Caller, message_id: str) -> int:
    """Follow a message, and consent to each call, or not; how often."""
    asked = consents = 0
    async with open_tail(api.events(message_id)) as tail:

        def told() -> bool:
            return _asked(tail.frames) > asked or tail.frames[-1].event in ENDS

        while True:
            await tail.until(lambda: bool(tail.frames) and told(), within=2 * PATIENCE)
            if _asked(tail.frames) == asked:
                return consents
            asked += 1
            approve = random.random() < 0.7
            consents += approve
            await _say(api, message_id, "call_0", approve=approve)


def _asked(frames: Sequence[SseFrame]) -> int:
    return sum(frame.event == "tool_waiting" for frame in frames)


async def _say(api: Caller, message_id: str, call_id: str, *, approve: bool) -> None:
    said = await api.http.post(api.link(message_id, f"/tools/{call_id}"), json={"approve": approve})
    assert said.status_code == 202, said.text


async def _waits(api: Caller, message_id: str) -> bool:
    status = (await api.snapshot(message_id))["status"]
    assert status != "done", "nobody was asked"
    return bool(status == "waiting")


async def _reached(effects: Effects, count: int) -> bool:
    return len(effects.keys()) >= count

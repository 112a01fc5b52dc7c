"""Redis loses a part of a running message's log: its worker tells it again, and asks nobody."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple, cast

import pytest
from redis.asyncio import Redis

from rejoin.shared import ending, keys, log, record, waiting
from rejoin.shared.asks import Answer, Kind
from rejoin.shared.errors import ProviderError
from rejoin.shared.events import FinishReason
from rejoin.shared.fold import Message, fold
from rejoin.shared.frames import Frame
from rejoin.shared.spent import attempts_of
from rejoin.worker import run
from rejoin.worker.providers.base import FinishChunk
from tests.redis.test_tools_waiting import CLIENTS
from tests.support.in_process import SCRIPT, RunningWorker, until_ended, until_events, worker_on
from tests.support.logs import data, names
from tests.support.messages import ids, post, until, until_true
from tests.support.scripted_provider import ScriptedProvider, answer, texts
from tests.support.tools import PlainTool, call, calling
from tests.support.waits import say_and_wake, until_parked

WORDS = [f"word{n} " for n in range(6)]
TEXT = "".join(WORDS)


class Gates(NamedTuple):
    """A provider that says a word, and the next one once its gate is set."""

    provider: ScriptedProvider
    gates: list[asyncio.Event]

    @classmethod
    def of_words(cls) -> "Gates":
        gates = [asyncio.Event() for _ in WORDS]
        script = [
            line for word, gate in zip(WORDS, gates, strict=True) for line in (*texts(word), gate)
        ]
        return cls(ScriptedProvider([*script, FinishChunk(FinishReason.STOP)]), gates)

    def go_on(self, until_word: int = len(WORDS)) -> None:
        for gate in self.gates[:until_word]:
            gate.set()


class Said(NamedTuple):
    message_id: str
    gates: Gates
    worker: RunningWorker


@asynccontextmanager
async def saying(url: str, redis: Redis, count: int) -> AsyncIterator[Said]:
    """A message under way whose log has so many words."""
    gates = Gates.of_words()
    async with worker_on(url, gates.provider) as worker:
        message_id = await post(redis, model=SCRIPT)
        gates.go_on(count - 1)
        await until_events(redis, message_id, 1 + count)
        yield Said(message_id, gates, worker)


async def lose(redis: Redis, message_id: str, kept: int) -> None:
    """Let a log have no more than its first events."""
    lost = (await ids(redis, message_id))[kept:]
    if lost:
        await redis.xdel(keys.log(message_id), *lost)


class Kept(NamedTuple):
    """A message as Redis had it at an earlier time."""

    dumped: dict[str, bytes | None]

    @classmethod
    async def of(cls, redis: Redis, message_id: str) -> "Kept":
        names = (keys.log, keys.record, keys.request, keys.answers)
        return cls({name(message_id): await redis.dump(name(message_id)) for name in names})

    async def go_back(self, redis: Redis) -> None:
        """What a failover to a replica that lagged does."""
        for name, dumped in self.dumped.items():
            if dumped is None:
                await redis.delete(name)
            else:
                await redis.restore(name, 600_000, dumped, replace=True)


async def whole(redis: Redis, message_id: str) -> tuple[list[Frame], Message]:
    """The ended log, checked: one end, no gap, ids that follow."""
    frames = await until_ended(redis, message_id)
    message = fold(frames)
    assert not message.gap
    assert [name for name in names(frames) if name in ("done", "failed", "usage")] == [
        "usage",
        names(frames)[-1],
    ]
    for before, frame in itertools.pairwise(frames):
        follows = frame.id.sequence == before.id.sequence + 1
        assert follows if frame.id.attempt == before.id.attempt else frame.id.sequence == 0
    assert message.end is not None
    assert message.end.fields.get("text_chars", len(message.text)) == len(message.text)
    return frames, message


@pytest.mark.parametrize("kept", range(5))
async def test_what_the_log_lost_is_told_again_and_the_provider_is_not_asked_again(
    clean_redis_url: str, redis: Redis, kept: int
) -> None:
    async with saying(clean_redis_url, redis, 4) as said:
        before = await log.read_all(redis, said.message_id)
        await lose(redis, said.message_id, kept)
        said.gates.go_on()
        frames, message = await whole(redis, said.message_id)
    assert message.text == TEXT
    assert len(said.gates.provider.calls) == 1
    assert frames[:kept] == before[:kept]
    (reset,) = data(frames, "reset")
    assert reset["after"] == (str(before[kept - 1].id) if kept else None)
    assert reset["reason"] == ("log_lost" if kept else "takeover")
    assert not {frame.id for frame in frames[kept:]} & {frame.id for frame in before}
    assert (await record.load(redis, said.message_id)).attempt == frames[-1].id.attempt  # type: ignore[union-attr]


async def test_a_log_that_is_lost_again_and_again_is_told_again_each_time(
    clean_redis_url: str, redis: Redis
) -> None:
    async with saying(clean_redis_url, redis, 1) as said:
        for count in range(1, len(WORDS)):
            await lose(redis, said.message_id, 1 + count % 3)
            said.gates.go_on(count)
            await _until_told(redis, said.message_id, "".join(WORDS[: count + 1]))
        said.gates.go_on()
        _, message = await whole(redis, said.message_id)
    assert message.text == TEXT
    assert len(said.gates.provider.calls) == 1


async def _until_told(redis: Redis, message_id: str, text: str) -> None:
    await until(lambda: _tells(redis, message_id, text))


async def _tells(redis: Redis, message_id: str, text: str) -> bool:
    return fold(await log.read_all(redis, message_id)).text == text


@pytest.mark.parametrize("count", range(4))
async def test_a_claim_that_was_lost_with_the_log_is_won_again(
    clean_redis_url: str, redis: Redis, count: int
) -> None:
    gates = Gates.of_words()
    message_id = await post(redis, model=SCRIPT)
    kept = await Kept.of(redis, message_id)
    async with worker_on(clean_redis_url, gates.provider):
        if count:
            gates.go_on(count - 1)
            await until_events(redis, message_id, 1 + count)
            kept = await Kept.of(redis, message_id)
        gates.go_on(3)
        await until_events(redis, message_id, 5)
        await kept.go_back(redis)
        gates.go_on()
        _, message = await whole(redis, message_id)
    assert message.text == TEXT
    assert len(gates.provider.calls) == 1


async def test_a_later_attempts_reset_that_was_lost_takes_back_the_same_again(
    clean_redis_url: str, redis: Redis
) -> None:
    breaks, goes_on = asyncio.Event(), asyncio.Event()
    error = ProviderError("away", code="provider_unavailable", retryable=True)
    provider = ScriptedProvider(
        [*texts("not ", "this"), breaks, error], [*texts("but "), goes_on, *answer("that")]
    )
    async with worker_on(clean_redis_url, provider, provider_retries=2):
        message_id = await post(redis, model=SCRIPT)
        await until_events(redis, message_id, 3)
        kept = await Kept.of(redis, message_id)
        breaks.set()
        await _until_told(redis, message_id, "but ")
        await kept.go_back(redis)
        goes_on.set()
        frames, message = await whole(redis, message_id)
    assert message.text == "but that"
    assert len(provider.calls) == 2
    (reset,) = data(frames, "reset")
    assert (reset["reason"], reset["after"]) == ("provider_unavailable", None)


async def test_an_end_whose_append_finds_a_loss_is_written_after_what_was_lost(
    clean_redis_url: str, redis: Redis
) -> None:
    async with saying(clean_redis_url, redis, len(WORDS)) as said:
        await lose(redis, said.message_id, 3)
        said.gates.go_on()
        frames, message = await whole(redis, said.message_id)
    assert message.text == TEXT
    assert len(said.gates.provider.calls) == 1
    assert names(frames)[-3:] == ["step", "usage", "done"]
    assert names(frames).count("step") == 1


@pytest.mark.parametrize("kept", [0, 1, 4, 8])
@pytest.mark.parametrize("times", [1, 2])
async def test_an_end_that_was_lost_before_the_turn_was_passed_is_written_again(
    clean_redis_url: str, redis: Redis, kept: int, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with saying(clean_redis_url, redis, 2) as said:
        at = await Kept.of(redis, said.message_id)
        seen = list[list[Frame]]()

        async def losing(*args: object, **more: object) -> bool:
            if len(seen) < times:
                seen.append(await log.read_all(redis, said.message_id))
                await at.go_back(redis)
                await lose(redis, said.message_id, kept)
            return await ending.aftermath(*args, **more)  # type: ignore[arg-type]

        monkeypatch.setattr(run, "aftermath", losing)
        said.gates.go_on()
        frames, message = await whole(redis, said.message_id)
    assert [names(one)[-1] for one in seen] == ["done"] * times
    assert message.text == TEXT
    assert len(said.gates.provider.calls) == 1
    assert not {f.id for f in frames if f.name == "done"} & {f.id for one in seen for f in one}


async def test_a_cancel_that_comes_after_a_lost_end_is_kept(
    clean_redis_url: str, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with saying(clean_redis_url, redis, 2) as said:
        at = await Kept.of(redis, said.message_id)
        seen = list[int]()

        async def losing(*args: object, **more: object) -> bool:
            if not seen:
                seen.append(1)
                await at.go_back(redis)
                assert await record.cancel(redis, said.message_id) is None
            return await ending.aftermath(*args, **more)  # type: ignore[arg-type]

        monkeypatch.setattr(run, "aftermath", losing)
        said.gates.go_on()
        frames, message = await whole(redis, said.message_id)
    assert message.text == TEXT
    assert data(frames, "done")[0]["finish_reason"] == "cancelled"


@pytest.mark.parametrize("kept", [0, 2])
async def test_a_cancel_ends_a_log_that_was_told_again(
    clean_redis_url: str, redis: Redis, kept: int
) -> None:
    async with saying(clean_redis_url, redis, 4) as said:
        await lose(redis, said.message_id, kept)
        await record.cancel(redis, said.message_id)
        frames, message = await whole(redis, said.message_id)
    assert message.text == "".join(WORDS[:4])
    assert data(frames, "done")[0]["finish_reason"] == "cancelled"


@pytest.mark.parametrize("lost", range(9))
async def test_finished_steps_and_their_tools_are_told_again_too(
    clean_redis_url: str, redis: Redis, lost: int
) -> None:
    look, gate = PlainTool(), asyncio.Event()
    second = [*texts("then "), gate, *answer("the end")]
    provider = ScriptedProvider(calling(call("c", at=1), words="first "), second)
    async with worker_on(clean_redis_url, provider, tools=[look]):
        message_id = await post(redis, model=SCRIPT, tools=["look"])
        await until_events(redis, message_id, 7)
        before = await log.read_all(redis, message_id)
        await lose(redis, message_id, max(0, len(before) - lost))
        gate.set()
        _, message = await whole(redis, message_id)
    assert message.text == "first then the end"
    assert (len(provider.calls), len(look.ran)) == (2, 1)
    assert [event.name for event in message.kept if event.name.startswith("tool")] == [
        "tool_call",
        "tool_start",
        "tool_result",
    ]
    assert [step.fields["step"] for step in message.named("step")] == [1, 2]


async def test_a_tool_that_runs_is_not_stopped_by_a_loss(
    clean_redis_url: str, redis: Redis
) -> None:
    look = PlainTool(gate=asyncio.Event())
    provider = ScriptedProvider(calling(call("c", at=1)), answer("so"))
    async with worker_on(clean_redis_url, provider, tools=[look]):
        message_id = await post(redis, model=SCRIPT, tools=["look"])
        await until_true(lambda: bool(look.ran))
        await redis.delete(keys.log(message_id))
        assert look.gate is not None
        look.gate.set()
        frames, message = await whole(redis, message_id)
    assert (len(provider.calls), len(look.ran)) == (2, 1)
    assert [one["result"] for one in data(frames, "tool_result")] == [{"at": 1}]
    assert message.text == "so"


async def test_calls_that_wait_are_asked_for_again_where_redis_lost_that_too(
    clean_redis_url: str, redis: Redis
) -> None:
    look = PlainTool(gate=asyncio.Event())
    provider = ScriptedProvider(calling(call("c", "ask"), call("b")), answer("so"))
    async with worker_on(clean_redis_url, provider, tools=[look]):
        message_id = await post(redis, model=SCRIPT, tools=["look", CLIENTS])
        await until_true(lambda: bool(look.ran))
        await redis.delete(keys.answers(message_id), keys.log(message_id))
        assert look.gate is not None
        look.gate.set()
        await until_parked(redis, message_id)
        assert [*await waiting.asked(redis, message_id)] == ["c"]
        await say_and_wake(redis, message_id, "c", Answer(Kind.RESULT, "yes"))
        _, message = await whole(redis, message_id)
    assert (len(provider.calls), len(look.ran)) == (2, 1)
    assert message.text == "so"


async def billed(
    redis: Redis, message_id: str, frames: list[Frame], message: Message
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The bill of a message that has ended, and those of its attempts that have one."""
    request = await record.load_request(redis, message_id)
    used = [one["usage"] for one in attempts_of(message, request, None)]
    (bill,) = data(frames, "usage")
    return bill, [one for one in used if isinstance(one, dict)]


async def test_what_the_log_lost_is_billed_once(clean_redis_url: str, redis: Redis) -> None:
    async with saying(clean_redis_url, redis, 4) as said:
        await lose(redis, said.message_id, 3)
        said.gates.go_on()
        frames, message = await whole(redis, said.message_id)
    bill, used = await billed(redis, said.message_id, frames, message)
    assert used == [bill]


@pytest.mark.parametrize("again", ["what was told again", "all since before the first loss"])
async def test_what_the_log_lost_twice_is_billed_once_too(
    clean_redis_url: str, redis: Redis, again: str
) -> None:
    async with saying(clean_redis_url, redis, 2) as said:
        before = await Kept.of(redis, said.message_id)
        await redis.delete(keys.log(said.message_id))
        said.gates.go_on(2)
        await _until_told(redis, said.message_id, "".join(WORDS[:3]))
        if again == "what was told again":
            await lose(redis, said.message_id, 4)
        else:
            await before.go_back(redis)
        said.gates.go_on()
        frames, message = await whole(redis, said.message_id)
    bill, used = await billed(redis, said.message_id, frames, message)
    assert used == [bill]
    assert len(said.gates.provider.calls) == 1


@pytest.mark.parametrize("kept", range(6))
@pytest.mark.parametrize("times", [1, 2])
async def test_what_the_log_told_of_calls_before_is_not_lost_with_it(
    clean_redis_url: str, redis: Redis, kept: int, times: int
) -> None:
    """Two calls broke off, the log is lost in the third, which then breaks off too."""
    error = ProviderError("away", code="provider_unavailable", retryable=True)
    gates = [asyncio.Event(), asyncio.Event()]
    provider = ScriptedProvider(
        [*texts("the first "), error],
        [*texts("the ", "second "), error],
        [*texts("and "), gates[0], *texts("another "), gates[1], *texts("third "), error],
        answer("that"),
    )
    async with worker_on(clean_redis_url, provider, provider_retries=4):
        message_id = await post(redis, model=SCRIPT)
        for said, gate in zip(("and ", "and another "), gates, strict=True):
            await _until_told(redis, message_id, said)
            if gate is gates[1] or times == 2:
                await lose(redis, message_id, kept)
            gate.set()
        frames, message = await whole(redis, message_id)
    bill, used = await billed(redis, message_id, frames, message)
    assert message.text == "that"
    assert len(provider.calls) == 4
    for name in ("input_tokens", "output_tokens"):
        assert sum(one[name] for one in used) == bill[name]


@pytest.mark.parametrize("kept", range(4))
async def test_nor_where_the_next_attempt_is_the_first_to_find_the_loss(
    clean_redis_url: str, redis: Redis, kept: int
) -> None:
    error = ProviderError("away", code="provider_unavailable", retryable=True)
    gate = asyncio.Event()
    provider = ScriptedProvider(
        [*texts("the first "), error], [*texts("the second "), gate, error], answer("that")
    )
    async with worker_on(clean_redis_url, provider, provider_retries=3):
        message_id = await post(redis, model=SCRIPT)
        await _until_told(redis, message_id, "the second ")
        await lose(redis, message_id, kept)
        gate.set()
        frames, message = await whole(redis, message_id)
    bill, used = await billed(redis, message_id, frames, message)
    for name in ("input_tokens", "output_tokens"):
        assert sum(one[name] for one in used) == bill[name]


async def test_a_log_of_which_too_much_is_lost_begins_again_from_what_is_left(
    clean_redis_url: str, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rejoin.worker.story.MOST_BYTES", 200)
    async with saying(clean_redis_url, redis, 4) as said:
        await redis.delete(keys.log(said.message_id))
        said.gates.go_on()
        _, message = await whole(redis, said.message_id)
    assert message.text == TEXT
    assert len(said.gates.provider.calls) == 2


async def test_a_loss_is_no_reason_to_write_for_one_that_has_lost_its_lease(
    clean_redis_url: str, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "_FRESH_SHARE", 0)
    async with saying(clean_redis_url, redis, 2) as said:
        await lose(redis, said.message_id, 1)
        await cast(Awaitable[int], redis.hset(keys.OWNERS, said.message_id, "another"))
        said.gates.go_on(3)
        await until_true(lambda: said.gates.provider.open == 0)
        assert await ids(redis, said.message_id) == ["1-0"]
        await cast(Awaitable[int], redis.hdel(keys.OWNERS, said.message_id))
        await redis.zadd(keys.QUEUE, {said.message_id: 1})
        said.gates.go_on()
        _, message = await whole(redis, said.message_id)
    assert message.text == TEXT


async def test_a_log_that_lost_its_beginning_is_saved_and_shown_all_the_same(
    clean_redis_url: str, redis: Redis
) -> None:
    async with saying(clean_redis_url, redis, 4) as said:
        await redis.xtrim(keys.log(said.message_id), maxlen=2, approximate=False)
        said.gates.go_on()
        frames = await until_ended(redis, said.message_id)

        async def saved() -> bool:
            return await redis.zscore(keys.UNSAVED, said.message_id) is None

        await until(saved)
    message = fold(frames)
    assert message.text == "".join(WORDS[2:])
    assert attempts_of(message, await record.load_request(redis, said.message_id), None) == []

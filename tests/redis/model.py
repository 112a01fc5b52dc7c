"""Messages, workers and an API that do every step of the rules at random, and what must hold.

The steps are those of a worker, one Redis call or two each: lease, renew, claim, write, end, hand
over, see to the job. In between a worker may be paused and go on with what it believes, or die;
a reply may be lost, so that the very same call is made again; a lease may end. With `losses` Redis
now and then loses its newest writes, as a restart or a failover may, and has another run_id then.
Some messages call tools that wait for people, or wait for their turn at a provider's key
(model_waits.py): their workers go, and come back.
Messages come into a few conversations, step by step too, and an API may die between two steps.
In a `calm` world nothing dies: then everything comes to its end without the reaper.
"""

import contextlib
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar, cast

from redis.asyncio import Redis

from rejoin.shared import accepting, keys, log, queue, record, turns
from rejoin.shared.clock import now_ms
from rejoin.shared.ending import Ender, aftermath, end_message
from rejoin.shared.errors import (
    CancelAsked,
    Fenced,
    LogEnded,
    LogWentBack,
    MessageMissing,
    Unavailable,
)
from rejoin.shared.events import Event, FinishReason, Reset
from rejoin.shared.fold import fold
from rejoin.shared.frames import Frame
from rejoin.shared.ids import EventId, new_message_id
from rejoin.shared.record import Claim, Status
from rejoin.shared.request import StoredRequest, StoredTurn
from rejoin.shared.turns import IfBusy
from rejoin.shared.waiting import Parked
from rejoin.worker.reaper import Reaper
from rejoin.worker.story import Story
from rejoin.worker.story import told as told_of
from tests.redis.model_waits import Calls, Waits, closing, left_open, new_calls, told
from tests.support.in_process import kit_for
from tests.support.messages import (
    LIFE,
    MODEL,
    batch,
    claim,
    end,
    enqueue,
    new_record,
    place,
    start,
)

T = TypeVar("T")
LEASE_SECONDS: Final = 600.0  # ends when the model says so, never by itself
STEPS: Final = 90
TO_SETTLE: Final = 1000


@dataclass
class Running:
    """What a worker believes of a message that it runs."""

    job: str
    token: str
    claim: Claim | None = None
    seen_attempt: int = 0
    written: int = 0
    to_end: bool = False
    ended: bool = False
    first: bool = False
    last: log.Batch | None = None
    doubt: bool = False  # Redis was away since the end was written
    calls: Calls = field(default_factory=Calls)
    word: str = ""  # which its texts are made of, whatever its claim is by now
    story: Story = field(default_factory=Story)

    def __post_init__(self) -> None:
        self.word = self.word or self.token


@dataclass
class Post:
    """A message on its way in, up to the next step: each of them may be done again."""

    message_id: str
    conversation_id: str
    if_busy: IfBusy
    step: int = 0
    ahead: str | None = None


@dataclass
class Worker:
    """A worker; `paused` ones do nothing until they go on."""

    name: str
    runs: dict[str, Running] = field(default_factory=dict)
    paused: bool = False


@dataclass
class Known:
    """What the outside was told of a message."""

    accepted_cancel: bool = False
    claims: set[str] = field(default_factory=set)
    seen: list[Frame] = field(default_factory=list)


class World(Waits):
    """Everything, driven by one seed."""

    def __init__(
        self, redis: Redis, seed: int, *, losses: bool = False, calm: bool = False
    ) -> None:
        self.redis = redis
        self.losses = losses
        self.calm = calm
        self.settles = False
        self.in_line = set()
        self.shown: dict[tuple[str, EventId], bytes] = {}
        self._kept: dict[bytes, bytes] = {}
        self.rng = random.Random(seed)
        self.workers = [Worker(f"w{n}") for n in range(3)]
        self.messages: dict[str, Known] = {}
        self.ender = Ender(redis, "api", 600)
        self.kit = kit_for(redis)
        self.talks = [new_message_id() for _ in range(2)]
        self.posts: list[Post] = []
        self.parents: dict[str, str | None] = {}
        self.answered: dict[str, dict[str, bool]] = {}
        self._names = 0

    async def run(self) -> None:
        """Do as the seed says, then let everybody finish, and check all of it."""
        for _ in range(STEPS):
            await self._step()
            await self._check_growth()
            await self._check_turns()
        if self.losses and self.rng.random() < 0.5:
            await self._lose()
        await self._settle()
        for message_id in self.messages:
            await self._check_ended(message_id)
        for talk in self.talks:
            first = await turns.first(self.redis, talk, life_seconds=LIFE)
            left = await turns.first_open(self.redis, talk, first, life_seconds=LIFE)
            assert left == ("", None), "a conversation is busy with nothing"

    async def _step(self) -> None:
        acts: list[tuple[int, Callable[[], Awaitable[None]]]] = [
            (2, self._post),
            (8, self._post_on),
            (4, self._cancel),
            (2, self._end_by_api),
            (6 * bool(self.messages), self._answer_any),
            (bool(self.messages), self._pass_deadline),
            (not self.calm, self._reap),
            (2 * self.losses, self._keep),
            (self.losses, self._lose),
            (self.losses, self._lose_of_the_queue),
            (4, self._lease),
            (3, self._expire),
            (2, self._renew),
            (not self.calm, self._die),
            (2, self._pause),
            (14, self._go_on),
        ]
        weights, choices = [weight for weight, _ in acts], [act for _, act in acts]
        await self.rng.choices(choices, weights)[0]()

    # What clients and the API do.

    async def _post(self) -> None:
        if len(self.messages) + len(self.posts) < 6:
            if_busy = self.rng.choice([IfBusy.ENQUEUE, IfBusy.ENQUEUE, IfBusy.INTERRUPT])
            post = Post(new_message_id(), self.rng.choice(self.talks), if_busy)
            self.posts.append(post)
            for _ in range(self.rng.randint(1, 6)):
                await self._post_step(post)

    async def _post_on(self) -> None:
        """Go on with an accept; its API may die, and its client send it again from the start."""
        if not self.posts:
            return
        post = self.rng.choice(self.posts)
        if not self.calm and self.rng.random() < 0.05:
            self.posts.remove(post)
        elif self.rng.random() < 0.1:
            post.step = 0
        else:
            await self._post_step(post)

    async def _post_step(self, post: Post) -> None:
        if post not in self.posts:
            return
        message_id, step = post.message_id, post.step
        post.step += 1
        if step == 0:
            await self._perhaps_again(lambda: queue.index(self.redis, message_id, most_due=99))
        elif step == 1:
            had = await self.redis.zscore(keys.turns(post.conversation_id), message_id)
            placed = await self._perhaps_again(lambda: self._place(post))
            post.ahead = placed.first_before
            if had is not None and not self.losses:
                assert self.parents[message_id] == placed.parent_id, "another parent"
            self.parents[message_id] = placed.parent_id
        elif step == 2:
            try:
                await self._store(post)
            except Unavailable:
                self.posts.remove(post)
                return
            self.messages.setdefault(message_id, Known())
        elif step == 3:
            if post.if_busy is IfBusy.INTERRUPT and post.ahead in self.messages:
                await self._cancel_of(post.ahead or "")
        else:
            self.posts.remove(post)
            await self._perhaps_again(lambda: self._queue_if_first(post))

    async def _place(self, post: Post) -> turns.Placed:
        return await turns.place(
            self.redis,
            post.conversation_id,
            post.message_id,
            owner="",
            if_busy=post.if_busy,
            parent_id=None,
            life_seconds=LIFE,
            make=True,
        )

    async def _store(self, post: Post) -> None:
        indexed_at = await self.redis.zscore(keys.OPEN, post.message_id)
        await accepting.store(
            self.redis,
            new_record(post.message_id, post.conversation_id),
            StoredRequest(MODEL, [StoredTurn("user", "x")]),
            indexed_at=int(indexed_at or 0),  # gone for its age, or lost
            life_seconds=LIFE,
        )

    async def _queue_if_first(self, post: Post) -> None:
        first = await turns.first(self.redis, post.conversation_id, life_seconds=LIFE)
        if first != post.message_id:
            first, _ = await turns.first_open(
                self.redis, post.conversation_id, first, life_seconds=LIFE
            )
        if first == post.message_id:
            await enqueue(self.redis, first)

    async def _cancel(self) -> None:
        if self.messages and self.rng.random() < 0.5:
            await self._cancel_of(self._any_message())

    async def _cancel_of(self, message_id: str) -> None:
        after_step = self.rng.random() < 0.4
        ended = await self._perhaps_again(
            lambda: record.cancel(self.redis, message_id, after_step=after_step)
        )
        if ended is None:
            self.messages[message_id].accepted_cancel = True
            await self._wake_waiting(message_id)

    async def _end_by_api(self) -> None:
        if self.messages:
            message_id = self._any_message()
            found = await record.load(self.redis, message_id)
            if found is None or not found.cancel_asked or found.ended:
                return
            nobodys = found.status in (Status.QUEUED, Status.WAITING)
            if nobodys or await queue.is_due(self.redis, message_id):
                self.messages[message_id].claims.add("api")
                await self._perhaps_again(lambda: end_message(self.ender, message_id))

    # What befalls workers and leases.

    async def _expire(self) -> None:
        if self.messages:
            message_id = self._any_message()
            if await self._is_held(message_id):
                await self.redis.zadd(keys.QUEUE, {message_id: 1}, xx=True)

    async def _pause(self) -> None:
        worker = self.rng.choice(self.workers)
        worker.paused = not worker.paused

    async def _die(self) -> None:
        at = self.rng.randrange(len(self.workers))
        self._names += 1
        self.workers[at] = Worker(f"x{self._names}")

    async def _keep(self) -> None:
        """Note what Redis holds: all that is written from now on may be lost, much or little."""
        if self._kept and self.rng.random() < 0.7:
            return
        names = await self.redis.keys()
        self._kept = {name: await self.redis.dump(name) for name in names}

    async def _lose(self) -> None:
        """Go back to what was noted, under another run_id."""
        if not self._kept:
            return
        await self.redis.flushall()
        for worker in self.workers:
            for running in worker.runs.values():
                running.doubt = True
        for name, dumped in self._kept.items():
            await self.redis.restore(name, 600_000, dumped)
        self._names += 1
        for message_id in list(self.messages):
            if await record.load(self.redis, message_id) is None:
                del self.messages[message_id]
                continue
            key = keys.record(message_id)
            # A second for each loss, so that claims in a test's haste are fewer than milliseconds.
            fields = {"created_at": f"{now_ms() - 1000 * self._names}"}
            if await cast(Awaitable[bool], self.redis.hexists(key, "run_id")):
                fields["run_id"] = f"{self._names}"
            await cast(Awaitable[int], self.redis.hset(key, mapping=fields))
            self.messages[message_id] = Known()
        self.answered.clear()

    async def _lose_of_the_queue(self) -> None:
        """Let a job that was taken off be there again: the queue may have a server of its own."""
        if self.messages:
            await enqueue(self.redis, self._any_message())

    async def _reap(self, *, late: bool = False) -> None:
        if late or self.rng.random() < 0.2:  # a minute has passed for what was never accepted
            for message_id in await self.redis.zrange(keys.OPEN, 0, -1):
                if message_id.decode() not in self.messages:
                    await self.redis.zincrby(keys.OPEN, -61_000, message_id)
        await Reaper(self.kit).look()

    # What workers do.

    async def _lease(self) -> None:
        worker = self._awake()
        if worker is None:
            return
        job = self._token()
        taken = await queue.lease(
            self.redis,
            token=job,
            lease_seconds=LEASE_SECONDS,
            most=self.rng.randint(1, 2),
            take_over=self.rng.random() < 0.9,
        )
        for message_id in taken:
            if message_id in worker.runs:
                del worker.runs[message_id]  # the old run stops; this lease ends by itself
            else:
                worker.runs[message_id] = Running(job, self._token())

    async def _renew(self) -> None:
        worker = self._awake()
        if worker is not None and worker.runs:
            held = {message_id: running.job for message_id, running in worker.runs.items()}
            lost = await self._perhaps_again(
                lambda: queue.renew(self.redis, held, lease_seconds=LEASE_SECONDS)
            )
            for message_id in lost:
                worker.runs.pop(message_id, None)

    async def _go_on(self) -> None:
        worker = self._awake()
        if worker is None or not worker.runs:
            return
        message_id = self.rng.choice(sorted(worker.runs))
        running = worker.runs[message_id]
        try:
            await self._next(worker, message_id, running)
        except Fenced:
            _drop(worker, message_id, running)
        except LogEnded:
            running.ended = True
        except LogWentBack:
            assert self.losses, "a log went back by itself"
            if (
                running.written
                and self.rng.random() < 0.6
                and await self._tell_again(worker, message_id, running)
            ):
                return
            seen = running.claim.attempt if running.claim else 0
            ((_, newest),) = await log.newest_of(self.redis, [message_id])
            seen = max(seen, newest.attempt if newest else 0)
            again = Running(running.job, self._token(), seen_attempt=seen)
            if worker.runs.get(message_id) is running:
                worker.runs[message_id] = again
        except MessageMissing:
            assert self.losses or message_id not in self.messages, "a record is gone"
            await queue.put_off(self.redis, message_id, running.job)
            _drop(worker, message_id, running)

    async def _next(self, worker: Worker, message_id: str, running: Running) -> None:
        if running.calls.parked:
            await self._give_back(message_id, running.job, running.calls)
            _drop(worker, message_id, running)
        elif running.ended:
            await self._aftermath(message_id, running)
            _drop(worker, message_id, running)
        elif running.claim is None:
            running.claim = await self._perhaps_again(
                lambda: claim(self.redis, message_id, running.token, seen=running.seen_attempt)
            )
            self.messages[message_id].claims.add(running.token)
            running.to_end = running.claim.cancel_asked
            running.first = running.to_end
        elif not running.first:
            running.first = await self._is_first(message_id)
            if not running.first:
                await record.hand_over(self.redis, message_id, running.token)
                await self._perhaps_again(
                    lambda: queue.complete(self.redis, message_id, running.job)
                )
                _drop(worker, message_id, running)
        elif running.written == 0:
            await self._write(message_id, running, await self._opening(message_id, running))
        else:
            await self._work(worker, message_id, running)

    async def _work(self, worker: Worker, message_id: str, running: Running) -> None:
        if running.calls.told and not running.to_end and self.rng.random() < 0.9:
            await self._see_to_calls(message_id, running)
        elif running.to_end or (not running.calls.told and self.rng.random() < 0.2):
            if self.rng.random() < 0.1:  # at the last moment
                await self._cancel_of(message_id)
            await self._end(message_id, running)
        elif running.calls.told or (chance := self.rng.random()) < 0.1:
            await self._perhaps_again(
                lambda: record.hand_over(self.redis, message_id, running.token)
            )
            await self._perhaps_again(lambda: queue.release(self.redis, message_id, running.job))
            _drop(worker, message_id, running)
        elif chance < 0.2 and not self.settles:
            if await self._park_in_line(message_id, running.token, running.calls) is Parked.CANCEL:
                running.to_end = True
        elif self.rng.random() < 0.3:
            asked, calls = new_calls([self._token() for _ in range(self.rng.randint(1, 2))])
            await self._write(message_id, running, asked)
            running.calls = calls
        else:
            words = [f"{running.word} "] * self.rng.randint(1, 3)
            await self._write(message_id, running, words)

    async def _see_to_calls(self, message_id: str, running: Running) -> None:
        calls = running.calls
        untold = [call_id for call_id, is_told in calls.told.items() if not is_told]
        if not calls.asked:
            await self._ask(message_id, running.token, calls)
        elif untold:
            await self._write(message_id, running, told(untold))
            calls.told |= dict.fromkeys(untold, True)
        elif self.rng.random() < 0.5:
            if await self._park(message_id, running.token, calls) is Parked.CANCEL:
                running.to_end = True
        elif events := await self._hear(message_id, calls):
            await self._write(message_id, running, events, "step")
            running.calls = Calls()

    async def _is_first(self, message_id: str) -> bool:
        found = await record.load(self.redis, message_id)
        if found is None:
            raise MessageMissing(message_id)
        first = await turns.first(self.redis, found.conversation_id, life_seconds=LIFE)
        return first == message_id

    async def _aftermath(self, message_id: str, running: Running) -> None:
        if running.doubt:
            await self._end_again(running)
        found = await record.load(self.redis, message_id)
        if found is not None and found.ended and self.rng.random() < 0.3:
            # Its worker dies after the first step, or the reply is lost: all of it is done again.
            await turns.pass_on(self.redis, found.conversation_id, message_id, life_seconds=LIFE)
            if not self.calm and self.rng.random() < 0.3:
                return
        await self._perhaps_again(
            lambda: aftermath(self.redis, message_id, job_token=running.job, life_seconds=LIFE)
        )

    async def _end_again(self, running: Running) -> None:
        if running.last is not None:
            with contextlib.suppress(LogEnded):
                await log.append(self.redis, running.last)

    async def _opening(self, message_id: str, running: Running) -> list[Event | str]:
        assert running.claim is not None
        attempt = running.claim.attempt
        if frames := await log.read_all(self.redis, message_id):
            reset, running.calls = left_open(frames, attempt)
            after = EventId.parse(reset.after) if reset.after else None
            running.story = Story(told_of(frames, fold(frames), after))
            return [reset]
        if attempt > 1:
            return [start(message_id, attempt), Reset(None, attempt, MODEL, "takeover")]
        return [start(message_id, attempt)]

    async def _write(
        self, message_id: str, running: Running, events: Sequence[Event | str], ending: str = ""
    ) -> None:
        assert running.claim is not None
        sent = batch(message_id, running.claim, running.written, events, ending=ending)
        running.last = sent
        appended = await self._perhaps_again(lambda: log.append(self.redis, sent))
        running.written += len(events)
        running.to_end |= appended.cancel_asked
        for frame in sent.frames:
            if frame.name not in ("start", "reset"):
                running.story.add(frame.data, frame.private)

    async def _tell_again(self, worker: Worker, message_id: str, running: Running) -> bool:
        """Tell a log again what it lost, as a writer does; False: begin anew.

        As in a worker, the lease is renewed first: another one's run is left alone.
        """
        assert running.claim is not None
        await record.hand_over(self.redis, message_id, running.token)
        lost = await queue.renew(self.redis, {message_id: running.job}, lease_seconds=LEASE_SECONDS)
        if lost:
            _drop(worker, message_id, running)
            return True
        token, before = self._token(), running.claim
        try:
            running.claim = await self._perhaps_again(
                lambda: claim(self.redis, message_id, token, seen=before.attempt)
            )
        except (LogEnded, MessageMissing):
            return False
        self.messages[message_id].claims.add(token)
        running.token, running.written = token, 0
        running.to_end |= running.claim.cancel_asked
        if not await self._is_first(message_id):
            return False
        frames = await log.read_all(self.redis, message_id)
        if frames and frames[-1].id.attempt >= running.claim.attempt:
            return False
        attempt = running.claim.attempt
        opening: list[Event | str] = [
            start(message_id, attempt),
            Reset(None, attempt, MODEL, "log_lost"),
        ]
        common = 0
        if frames:
            left = told_of(frames, fold(frames), frames[-1].id)
            common = running.story.common_with(left) or 0
            after = left[common - 1].id if common else None
            opening = [Reset(str(after) if after else None, attempt, MODEL, "log_lost")]
        again, _ = running.story.again(common, attempt, len(opening))
        sent = batch(message_id, running.claim, 0, opening)
        sent = sent._replace(frames=[*sent.frames, *again])
        try:
            await self._perhaps_again(lambda: log.append(self.redis, sent))
        except (LogEnded, LogWentBack, Fenced):
            return False
        running.written = len(sent.frames)
        return True

    async def _end(self, message_id: str, running: Running) -> None:
        if running.to_end:
            last = [*closing(running.calls), *end(FinishReason.CANCELLED)]
            await self._write(message_id, running, last, "cancelled")
        else:
            try:
                await self._write(message_id, running, end(), "done")
            except CancelAsked:
                running.to_end = True
                return
        running.ended = True

    # Helpers of the world.

    def _any_message(self) -> str:
        return self.rng.choice(sorted(self.messages))

    def _awake(self) -> Worker | None:
        awake = [worker for worker in self.workers if not worker.paused]
        return self.rng.choice(awake) if awake else None

    def _token(self) -> str:
        self._names += 1
        return f"t{self._names}"

    async def _perhaps_again(self, call: Callable[[], Awaitable[T]]) -> T:
        """Make a call; where its reply is lost, make the very same one again, at once or later."""
        reply = await call()
        if self.rng.random() < 0.25:
            if self.rng.random() < 0.3:
                await self._expire()
                await self._lease()
            reply = await call()
        return reply

    async def _settle(self) -> None:
        """Let everybody live and go on; leases of the dead end."""
        for worker in self.workers:
            worker.paused = False
        self.settles = True
        for step in range(TO_SETTLE):
            if step % 50 == 0:
                for name in await self.redis.zrange(keys.QUEUE, 0, -1):
                    # What waits for people is woken by their answers, or stalls.
                    if await self._comes_by_itself(name.decode()):
                        await self.redis.zadd(keys.QUEUE, {name: 1}, xx=True)
                for message_id in self.messages:
                    await self._answer_any(message_id, all_of_them=True)
                if not self.calm:
                    await self._reap(late=True)
            await self._lease()
            await self._go_on()
            await self._check_growth()
            await self._check_turns()
            if self.posts:
                await self._post_step(self.posts[0])
            elif not await self.redis.zcard(keys.QUEUE) and await self._all_over():
                return
        raise AssertionError(f"a stall: {[await self._about(m) for m in self.messages]}")

    async def _all_over(self) -> bool:
        """Whether no message is open; an index entry of one that has ended the reaper drops."""
        for name in await self.redis.zrange(keys.OPEN, 0, -1):
            found = await record.load(self.redis, name.decode())
            if not self.calm or found is None or not found.ended:
                return False
        return True

    async def _comes_by_itself(self, message_id: str) -> bool:
        if await self._is_held(message_id) or message_id not in self.messages:
            return True
        found = await record.load(self.redis, message_id)
        waits = found is not None and found.status is Status.WAITING and not found.cancel_asked
        return waits and message_id in self.in_line

    async def _about(self, message_id: str) -> str:
        found = await record.load(self.redis, message_id)
        return f"{await place(self.redis, message_id)} {found and found.status}"

    # What must hold.

    async def _check_growth(self) -> None:
        """Nobody has been shown an event that is gone or other by now, or one after the end."""
        for message_id, known in self.messages.items():
            frames = await log.read_all(self.redis, message_id)
            for frame in frames:
                shown = self.shown.setdefault((message_id, frame.id), frame.data)
                assert shown == frame.data, f"{frame.id} was another event before"
            assert frames[: len(known.seen)] == known.seen, "the log went back"
            if any(frame.name == "done" for frame in known.seen):
                assert frames == known.seen, "something follows the end"
            known.seen = frames

    async def _check_turns(self) -> None:
        """Of one conversation, one message at the most has begun and not ended."""
        open_in: dict[str, list[str]] = {}
        for message_id, known in self.messages.items():
            names = [frame.name for frame in known.seen]
            found = await record.load(self.redis, message_id)
            if found is not None and names and "done" not in names:
                open_in.setdefault(found.conversation_id, []).append(message_id)
        for conversation_id, ids in open_in.items():
            assert len(ids) == 1, f"side by side in {conversation_id}: {ids}"

    async def _check_ended(self, message_id: str) -> None:
        known, frames = self.messages[message_id], await log.read_all(self.redis, message_id)
        assert [f.name for f in frames if f.name in ("done", "failed")] == ["done"]
        assert frames[-1].name == "done"
        assert [frame.name for frame in frames].count("usage") == 1
        writers = attempts_of(frames)
        message = fold(frames)
        assert not message.gap
        last = next((who for _, who in sorted(writers.items(), reverse=True) if who), set())
        if not message.named("tool_call"):
            assert set(message.text.split()) <= last, "text of another attempt stands"
        found = await record.load(self.redis, message_id)
        assert found is not None
        assert found.ended
        assert found.attempt == frames[-1].id.attempt, "claimed after its end"
        if not self.losses:
            assert found.attempt <= len(known.claims), "a claim counted twice"
        assert message.end is not None
        cancelled = message.end.fields["finish_reason"] == "cancelled"
        assert cancelled == (found.status is Status.CANCELLED)
        self._check_calls(message_id, message, cancelled=cancelled)
        if known.accepted_cancel:
            assert cancelled, "a cancel that was accepted is lost"
        due, owner, indexed = await place(self.redis, message_id)
        assert (due, owner, indexed and not self.calm) == (None, None, False)
        assert await self.redis.exists(keys.job(message_id)) == 0


def _drop(worker: Worker, message_id: str, running: Running) -> None:
    if worker.runs.get(message_id) is running:
        del worker.runs[message_id]


def attempts_of(frames: Sequence[Frame]) -> dict[int, set[str]]:
    """Who wrote each attempt; ids dense within one, growing over all, and one writer an attempt."""
    writers: dict[int, set[str]] = {}
    for before, frame in zip([None, *frames], frames, strict=False):
        attempt, sequence = frame.id
        if before is not None and before.id.attempt == attempt:
            assert sequence == before.id.sequence + 1, f"a hole or a double at {frame.id}"
        else:
            assert before is None or attempt > before.id.attempt, f"{frame.id} goes back"
            assert sequence == 0, f"{frame.id} begins an attempt"
            assert frame.name == ("start" if before is None else "reset"), frame
        who = writers.setdefault(attempt, set())
        if frame.name == "text":
            who.add(frame.json.decode().split('"')[3].strip())
        assert len(who) <= 1, f"two writers in attempt {attempt}: {who}"
    return writers

"""A model of the rules, explored at random: it holds, and each rule left out is noticed."""

import itertools
from hashlib import sha1

import pytest
from redis.asyncio import Redis

from rejoin.shared import queue, scripts
from tests.redis.model import World

SEEDS = 40
WORLDS = {"deaths": {}, "losses": {"losses": True}, "calm": {"calm": True}}


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("seeds", [range(n, n + 10) for n in range(0, SEEDS, 10)], ids=str)
async def test_whatever_befalls_workers_every_message_ends_once_and_whole(
    redis: Redis, seeds: range, world: str
) -> None:
    for seed in seeds:
        await redis.flushall()
        try:
            await World(redis, seed, **WORLDS[world]).run()
        except Exception as error:
            error.add_note(f"seed {seed}")
            raise


# Rules as they stand in their scripts, and what the script is without each. Those that are not
# here are second walls, or the reaper mends what they prevent: tests of their own hold them.
RULES = {
    "a claim's token fences another": (
        "log/append",
        "if attempt < owned or (attempt == owned and r[2] ~= ARGV[2]) then",
        "if false then",
    ),
    "a batch again is a success again": ("log/append", "if r[5] == wrote then", "if false then"),
    "a cancel refuses another end": (
        "log/append",
        "if cancel ~= 0 and ends and ARGV[5] ~= 'cancelled' then",
        "if false then",
    ),
    "a claim raises the attempt": ("log/claim", "tonumber(ARGV[3])) + 1", "tonumber(ARGV[3]), 1)"),
    "the same token is the same claim": ("log/claim", "if r[3] == ARGV[1] then", "if false then"),
    "a log that went back is noticed": (
        "log/append",
        "if attempt > owned or not follows then",
        "if false then",
    ),
    "attempts leap over what a restart lost": (
        "log/claim",
        "if r[6] and r[6] ~= run_id then",
        "if false then",
    ),
    "the run_id is kept from the start": (
        "log/accept",
        "redis.call('HSET', KEYS[1], 'run_id',",
        "string.format('%s',",
    ),
    "an ended message is not claimed": ("log/claim", "if r[4] then", "if false then"),
    "a turn passed twice is passed once": (
        "conversation/pass",
        "redis.call('ZREM', KEYS[1], ARGV[1])",
        "redis.call('ZPOPMIN', KEYS[1])",
    ),
    "a message has one place": (
        "conversation/place",
        "if redis.call('ZSCORE', KEYS[1], id) then",
        "if false then",
    ),
    "an interrupt comes after the first": (
        "conversation/place",
        "redis.call('ZADD', KEYS[1], at - 1, first)",
        "at = at - 1",
    ),
    "a step is no end": (
        "log/append",
        "local ends = ARGV[5] ~= '' and ARGV[5] ~= 'step'",
        "local ends = ARGV[5] ~= ''",
    ),
    "the first answer stands": (
        "log/answer",
        "if stands and stands ~= ARGV[3] then",
        "if false then",
    ),
    "what is asked again keeps its answer": (
        "log/ask",
        "if tonumber(ARGV[i + 1]) > round then",
        "if true then",
    ),
    "an answer is told to be the last one": (
        "log/answer",
        "return {'answered', 1}",
        "return {'answered', 0}",
    ),
    "what is answered does not wait": ("log/park", "if r[4] or not open then", "if r[4] then"),
    "a wake moves a job that is put off": (
        "queue/wake",
        "redis.call('ZADD', KEYS[1], now, ARGV[1])",
        "",
    ),
    "a wake marks a job that runs": (
        "queue/wake",
        "redis.call('HSET', KEYS[2], 'woken ' .. ARGV[1], '1')",
        "",
    ),
    "what was woken is not put off": (
        "queue/release",
        "if woken or (score and tonumber(score) <= now) then",
        "if false then",
    ),
}


@pytest.mark.parametrize("rule", RULES)
async def test_a_rule_left_out_is_noticed(
    redis: Redis, rule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, text, without = RULES[rule]
    whole, source = scripts.source(name), scripts.source
    assert whole.count(text) == 1, "the rule reads otherwise by now: mend this table"
    broken = whole.replace(text, without)
    monkeypatch.setattr(scripts, "source", lambda asked: broken if asked == name else source(asked))
    monkeypatch.setattr(
        scripts, "digest", lambda asked: sha1(scripts.source(asked).encode()).hexdigest()
    )
    assert await _noticed(redis)


async def _always(*_: object) -> bool:
    return True


async def _passing_nobody(
    redis: Redis, conversation_id: str, first: str, *, life_seconds: int
) -> tuple[str, None]:
    return first, None


async def _aftermath_without_a_pass(
    redis: Redis, message_id: str, *, job_token: str, life_seconds: int
) -> bool:
    if await queue.complete(redis, message_id, job_token):
        await queue.drop_index(redis, message_id)
    return True


# Rules that stand in Python: where, and what is there without each.
RULES_IN_PYTHON = {
    "a worker asks whether it is its turn": (("tests.redis.model.World._is_first", _always),),
    "a turn that nobody will take is passed on": (
        ("rejoin.shared.turns.first_open", _passing_nobody),
    ),
    "an end passes the turn": (("tests.redis.model.aftermath", _aftermath_without_a_pass),),
}


@pytest.mark.parametrize("rule", RULES_IN_PYTHON)
async def test_a_rule_in_python_left_out_is_noticed(
    redis: Redis, rule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place, without in RULES_IN_PYTHON[rule]:
        monkeypatch.setattr(place, without)
    assert await _noticed(redis)


async def _noticed(redis: Redis) -> bool:
    for seed, world in itertools.product(range(SEEDS), WORLDS):
        await redis.flushall()
        try:
            await World(redis, seed, **WORLDS[world]).run()
        except Exception:  # noqa: BLE001  a broken rule may show in any way
            return True
    return False

"""The plan of a chaos run: messages, their readers and every fault, all from one seed."""

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import islice
from math import inf
from typing import Final
from urllib.parse import parse_qsl

from tests.chaos.tool_plan import NO_TOOLS, ToolsPlan, draw_fault, draw_tools
from tests.support.provider_script import simulated_text

APIS: Final = 2
WORKERS: Final = 3
MESSAGES_A_SECOND: Final = 4.0
SECONDS_BETWEEN_FAULTS: Final = 1.4
QUIET_AT_FIRST_SECONDS: Final = 2.0


class Reader(StrEnum):
    """How one tail reads."""

    STREAM = "stream"  # GET, back by Last-Event-ID
    POST = "post"  # the same POST again and again, asking for the stream
    PAGES = "pages"  # JSON, page by page
    SNAPSHOT = "snapshot"  # the message so far, then the stream from its last_event_id


class Kind(StrEnum):
    """What is broken, and how."""

    WORKER_KILL = "worker kill -9"
    WORKER_TERM = "worker SIGTERM"
    WORKER_PAUSE = "worker SIGSTOP beyond its lease"
    WORKERS_KILL = "all workers kill -9"
    API_KILL = "API kill -9"
    API_TERM = "API SIGTERM"
    API_PAUSE = "API SIGSTOP"
    REDIS_KILL = "Redis kill -9"
    REDIS_TERM = "Redis SIGTERM"
    REDIS_PAUSE = "Redis SIGSTOP"
    REDIS_FULL = "Redis out of memory"
    CLIENT_KILL = "CLIENT KILL of all"
    PROXY_CUT = "all proxied sockets cut"


# How often, and for how many seconds at least and at most.
_FAULTS: Final[dict[Kind, tuple[int, float, float]]] = {
    Kind.WORKER_KILL: (6, 0.1, 2.0),
    Kind.WORKER_TERM: (5, 0.0, 1.0),
    Kind.WORKER_PAUSE: (5, 2.5, 6.0),
    Kind.WORKERS_KILL: (1, 0.1, 1.0),
    Kind.API_KILL: (4, 0.1, 1.0),
    Kind.API_TERM: (4, 0.0, 1.0),
    Kind.API_PAUSE: (2, 0.5, 4.0),
    Kind.REDIS_KILL: (3, 0.0, 2.0),
    Kind.REDIS_TERM: (1, 0.0, 1.0),
    Kind.REDIS_PAUSE: (2, 0.5, 6.0),
    Kind.REDIS_FULL: (2, 0.3, 3.0),
    Kind.CLIENT_KILL: (5, 0.0, 0.0),
    Kind.PROXY_CUT: (4, 0.0, 0.0),
}

# A provider's fault that passes after some requests, or that stays: then with which code.
_PASSING: Final = (
    *("fault=drop", "fault=reset", "fault=eof", "fault=error", "fault=junk", "fault=stall"),
    *("fault=silent", "fault=429&retry_after=1", "fault=429", "fault=500", "fault=503"),
)
_LASTING: Final = {
    "fault=401": "authentication",
    "fault=400": "invalid_request",
    "fault=context": "context_length_exceeded",
    "fault=500": "provider_unavailable",
    "fault=eof": "provider_protocol",
}

# How often a message is what; and of those with tools, how often another one follows.
_KINDS: Final = {"echo": 20, "clean": 12, "passing": 20, "lasting": 5, "burst": 7, "tools": 36}
_FOLLOWED: Final = 0.4
# How often one whose model fails has another one, and how often a text is gone on with.
_FALLS_BACK: Final = 0.5
_GOES_ON: Final = 0.5


@dataclass(frozen=True, slots=True)
class TailPlan:
    """One reader of one message; `after` seconds from its acceptance."""

    number: int
    reader: Reader
    by_proxy: bool
    slow: bool
    after: float


@dataclass(frozen=True, slots=True)
class MessagePlan:
    """One message: when, what, what its whole text is, and how it must end (None: `done`).

    `follows`: the number of the message whose conversation it goes on with. `fallback` is the model
    that takes over where the first one fails, or is left alone; `goes_on`: a text that broke off
    is gone on with.
    """

    number: int
    at: float
    model: str
    input: str
    text: str
    reasoning: str
    fails_with: str | None
    cancel_after: float | None
    twice: bool
    tails: tuple[TailPlan, ...]
    tools: ToolsPlan = NO_TOOLS
    follows: int | None = None
    fallback: str = ""
    goes_on: bool = False

    @property
    def key(self) -> str:
        """Its Idempotency-Key."""
        return f"chaos {self.number}"


@dataclass(frozen=True, slots=True)
class FaultPlan:
    """One fault: at which second, of which process, for how long."""

    at: float
    kind: Kind
    target: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Plan:
    """A whole run. The same seed and length give the same plan."""

    seed: int
    seconds: float
    rate: float  # messages a second
    pause: float  # seconds between faults
    messages: tuple[MessagePlan, ...]
    faults: tuple[FaultPlan, ...]
    count: int | None = None  # of messages, where that was asked for


def make_plan(
    seed: int,
    seconds: float,
    rate: float = MESSAGES_A_SECOND,
    pause: float = SECONDS_BETWEEN_FAULTS,
    *,
    count: int | None = None,
) -> Plan:
    """Draw a plan of `seconds` of faults: messages a second, and seconds between faults.

    With `count` it is as long as so many messages take.
    """
    chance = random.Random(f"{seed} messages")
    if count is None:
        messages = tuple(_messages(chance, seconds, rate))
    else:
        messages = tuple(islice(_messages(chance, inf, rate), count))
        seconds = max((message.at for message in messages), default=0.0)
    return Plan(
        seed,
        seconds,
        rate,
        pause,
        messages,
        tuple(_faults(random.Random(f"{seed} faults"), seconds, pause)),
        count,
    )


def _faults(chance: random.Random, seconds: float, pause: float) -> Iterator[FaultPlan]:
    kinds, weights = list(_FAULTS), [weight for weight, _, _ in _FAULTS.values()]
    at = QUIET_AT_FIRST_SECONDS
    while at < seconds:
        (kind,) = chance.choices(kinds, weights)
        _, least, most = _FAULTS[kind]
        target = chance.randrange(APIS if kind.startswith("API") else WORKERS)
        yield FaultPlan(at, kind, target, chance.uniform(least, most))
        at += chance.expovariate(1 / pause)


def _messages(chance: random.Random, seconds: float, rate: float) -> Iterator[MessagePlan]:
    at, number = 0.0, 0
    while at < seconds:
        message = _message(chance, number, at)
        yield message
        number += 1
        if message.tools.steps and chance.random() < _FOLLOWED:
            later = min(seconds, at + chance.uniform(0, 12))
            yield replace(_message(chance, number, later), follows=message.number)
            number += 1
        at += chance.expovariate(rate)


def _message(chance: random.Random, number: int, at: float) -> MessagePlan:
    (kind,) = chance.choices(list(_KINDS), list(_KINDS.values()))
    made = _with_tools(chance, number, at) if kind == "tools" else _plain(chance, kind, number, at)
    often = 0.25 if made.tools.steps else 0.15
    made = replace(_with_fallback(chance, made), goes_on=chance.random() < _GOES_ON)
    return replace(
        made,
        cancel_after=chance.choice([0.0, chance.uniform(0, 8)])
        if chance.random() < often
        else None,
        twice=chance.random() < 0.1,
        tails=tuple(_tail(chance, n) for n in range(chance.randint(2, 4))),
    )


def _plain(chance: random.Random, kind: str, number: int, at: float) -> MessagePlan:
    words, rate = chance.randint(10, 100), chance.choice([10, 20, 40, 80])
    options, reasoning, fails_with = "", 0, None
    if kind == "burst":
        words, rate = chance.choice([400, 1500, 4000]), 0
    elif kind == "passing":
        fault, times = chance.choice(_PASSING), chance.choice([1, 1, 2])
        options = f"&{fault}&times={times}&at={chance.randint(0, words - 1)}"
    elif kind == "lasting":
        fault, fails_with = chance.choice(list(_LASTING.items()))
        options = f"&{fault}&at={chance.randint(0, words - 1)}"
    elif kind == "clean":
        reasoning = chance.choice([0, 0, 5])
        options = chance.choice(["", "&split=7", "&delay=1"])
    model = f"openai/sim?words={words}&rate={rate}&reasoning={reasoning}{options}&n={number}"
    said, text = f"Question {number}", simulated_text(words)
    if kind == "echo" or (kind == "burst" and chance.random() < 0.5):
        model = f"demo/echo?rate={rate}"
        said = text = "".join(f"w{number}-{word} " for word in range(words)).rstrip()
    thought = "".join(f"so{word} " for word in range(reasoning))
    return MessagePlan(number, at, model, said, text, thought, fails_with, None, False, ())


def _with_fallback(chance: random.Random, made: MessagePlan) -> MessagePlan:
    """Give some of those whose model fails a fallback; it has more to say where that fails always.

    Both have the same words, so that one may go on with the other's.
    """
    _, _, option = made.model.partition("?")
    options = dict(parse_qsl(option))
    if made.tools.steps or "fault" not in options or chance.random() > _FALLS_BACK:
        return made
    fails, words = made.fails_with, int(options["words"])
    if fails not in (None, "invalid_request"):  # a bad request is bad for all
        fails, words = None, words + chance.randint(0, 20)
    own = f"words={words}&rate={options['rate']}&reasoning={options['reasoning']}"
    fallback = f"openai/spare?{own}&n={made.number}"
    return replace(made, fallback=fallback, fails_with=fails, text=simulated_text(words))


def _with_tools(chance: random.Random, number: int, at: float) -> MessagePlan:
    words, tools = chance.randint(1, 20), draw_tools(chance)
    model = f"openai/sim?words={words}&rate={chance.choice([10, 20, 40])}&steps={tools.option}"
    model += "&ids=none" if chance.random() < 0.2 else ""
    model += draw_fault(chance, tools, words) if chance.random() < 0.3 else ""
    text = simulated_text(words * (len(tools.steps) + 1))
    model += f"&n={number}"
    return MessagePlan(number, at, model, f"Task {number}", text, "", None, None, False, (), tools)


def _tail(chance: random.Random, number: int) -> TailPlan:
    (reader,) = chance.choices(list(Reader), [6, 1, 2, 1])
    # The first one is there from the start, as a page that has just sent its message.
    after = 0.0 if number == 0 else chance.uniform(0, 8)
    return TailPlan(number, reader, chance.random() < 0.5, chance.random() < 0.2, after)

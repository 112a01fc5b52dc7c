"""What a planned message asks of tools, step by step, and what people say to those that wait."""

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

TOOL_WAIT_SECONDS: Final = 5.0
DEFINED: Final = "local"  # the tool whose definition comes with the request
UNKNOWN: Final = "nothing"  # the tool that there is not
DEFINITION: Final = {
    "name": DEFINED,
    "description": "The client's own.",
    "parameters": {"type": "object", "properties": {"mark": {"type": "string"}}},
}

FAIL, RETRY, ASK = "fail", "retry", "ask"
# Of each registered tool: what becomes of it where nobody knows whether it was done.
POLICIES: Final = {
    "pay": FAIL, "fetch": RETRY, "book": ASK, "crawl": FAIL, "grind": RETRY, "trip": FAIL,
    "hang": FAIL, "send": FAIL, "tell": RETRY,
}  # fmt: skip
NEED_APPROVAL: Final = frozenset(["send", "tell"])
FAILS: Final = frozenset(["trip", "hang"])  # none of their calls has a result
_WEIGHTS: Final = {
    "pay": 4, "fetch": 3, "book": 4, "crawl": 2, "grind": 2, "trip": 2, "hang": 1, "send": 4,
    "tell": 2, DEFINED: 5, UNKNOWN: 1,
}  # fmt: skip

_PASSING: Final = ("drop", "reset", "eof", "error", "junk", "stall", "silent", "429", "500", "503")


class Trouble(StrEnum):
    """What is wrong with a call's arguments."""

    NONE = ""
    CUT = "cut"  # no JSON, in an answer that ends well
    UNFIT = "unfit"  # JSON, but not what the tool takes


@dataclass(frozen=True, slots=True)
class Reply:
    """What is said to a call that waits, so many seconds after it was seen to, as JSON."""

    after: float
    body: str

    @property
    def said(self) -> dict[str, object]:
        """The body of its POST."""
        said: dict[str, object] = json.loads(self.body)
        return said


@dataclass(frozen=True, slots=True)
class CallPlan:
    """One call that the model makes; `mark` tells it from every other one of its message."""

    mark: str
    name: str
    trouble: Trouble = Trouble.NONE
    replies: tuple[Reply, ...] = ()

    @property
    def arguments(self) -> dict[str, object]:
        """As they are in the log."""
        match self.trouble:
            case Trouble.CUT:
                return {}
            case Trouble.UNFIT:
                return {"mork": self.mark}
        return {"mark": self.mark}


@dataclass(frozen=True, slots=True)
class ToolsPlan:
    """A message's steps that call tools, and how a cancel is asked for: after the present step,
    and then, where `then_now`, at once.
    """

    steps: tuple[tuple[CallPlan, ...], ...] = ()
    after_step: bool = False
    then_now: bool = False
    by_mark: dict[str, CallPlan] = field(init=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.by_mark.update({call.mark: call for step in self.steps for call in step})

    @property
    def option(self) -> str:
        """The steps as the provider is told of them, in the model's name."""
        return ";".join(
            ",".join(f"{call.name}:{call.trouble}" for call in step) for step in self.steps
        )


NO_TOOLS: Final = ToolsPlan()


def read_option(option: str) -> list[list[CallPlan]]:
    """The steps that a model's name tells of."""
    return [
        [
            CallPlan(mark(number, place), name, Trouble(trouble))
            for place, (name, _, trouble) in enumerate(
                call.partition(":") for call in step.split(",")
            )
        ]
        for number, step in enumerate(option.split(";") if option else (), 1)
    ]


def mark(step: int, place: int) -> str:
    """What tells a call from the others of its message."""
    return f"step {step} call {place}"


def draw_tools(chance: random.Random) -> ToolsPlan:
    """Draw one to three steps of one to three calls each."""
    steps = tuple(
        tuple(_call(chance, step, place) for place in range(chance.choice([1, 1, 2, 3])))
        for step in range(1, chance.choice([1, 1, 2, 3]) + 1)
    )
    after_step = chance.random() < 0.5
    return ToolsPlan(steps, after_step, after_step and chance.random() < 0.3)


def draw_fault(chance: random.Random, tools: ToolsPlan, words: int) -> str:
    """Options that let the provider fail in one of the steps, in words or in arguments."""
    step = chance.randrange(len(tools.steps) + 1)
    calls = len(tools.steps[step]) if step < len(tools.steps) else 0
    inside = calls and chance.random() < 0.5
    at = words + chance.randrange(calls) if inside else chance.randrange(words)
    return f"&fault={chance.choice(_PASSING)}&times={chance.choice([1, 1, 2])}&in={step}&at={at}"


def _call(chance: random.Random, step: int, place: int) -> CallPlan:
    (name,) = chance.choices(list(_WEIGHTS), list(_WEIGHTS.values()))
    trouble, made = Trouble.NONE, mark(step, place)
    if chance.random() < 0.08 and name != UNKNOWN:
        trouble = Trouble.CUT if name == DEFINED else chance.choice([Trouble.CUT, Trouble.UNFIT])
    return CallPlan(made, name, trouble, tuple(_replies(chance, name, made)))


def _replies(chance: random.Random, name: str, made: str) -> Iterator[Reply]:
    if chance.random() < 0.15:
        return  # nobody ever answers
    late = chance.random() < 0.15
    after = TOOL_WAIT_SECONDS + chance.uniform(-0.5, 1) if late else chance.uniform(0, 4)
    said = _said(chance, name, made)
    yield Reply(after, json.dumps(said))
    match chance.choice(["once", "once", "same", "other"]):
        case "same":
            yield Reply(after + chance.choice([0, chance.uniform(0, 2)]), json.dumps(said))
        case "other":
            other = {"approve": not said["approve"]} if "approve" in said else {"error": "other"}
            yield Reply(after + chance.choice([0, chance.uniform(0, 2)]), json.dumps(other))


def _said(chance: random.Random, name: str, made: str) -> dict[str, object]:
    if name != DEFINED:
        return {"approve": chance.random() < 0.75}
    if chance.random() < 0.2:
        return {"error": f"no {made}"}
    return {"result": chance.choice([None, 7, {"own": made}, [made, "naïve 日本"]])}

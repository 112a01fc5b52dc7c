"""The chaos test's checks of tools: a right message passes, and each made-up violation is found."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from tests.chaos.checks import parse_log
from tests.chaos.cluster import LEASE_SECONDS
from tests.chaos.plan import MessagePlan, make_plan
from tests.chaos.provider import steps_done
from tests.chaos.senders import Message, Said
from tests.chaos.tally import Tally
from tests.chaos.tool_checks import (
    read_effects,
    unknown_effects,
    wrong_calls,
    wrong_snapshot,
)
from tests.chaos.tool_plan import CallPlan, ToolsPlan, Trouble, mark, read_option
from tests.chaos.waits import Waits

ID: Final = "01980000-0000-7000-8000-000000000001"
Entry = tuple[str, dict[str, Any]]


def call(name: str, place: int, *, step: int = 1, call_id: str = "", **arguments: str) -> Entry:
    arguments = arguments or {"mark": mark(step, place)}
    made = {"tool_call_id": call_id or f"c{place}", "name": name, "arguments": arguments}
    return "tool_call", made


def of(event: str, name: str, call_id: str = "c0", **fields: Any) -> Entry:
    return event, {"tool_call_id": call_id, "name": name, **fields}


def step(number: int, reason: str = "tool_calls") -> Entry:
    return "step", {"step": number, "finish_reason": reason}


def did(call_id: str = "c0", place: int = 0, number: int = 1) -> dict[str, str]:
    return {"key": f"{ID}:{number}:{call_id}", "mark": mark(number, place)}


START: Final[Entry] = ("start", {"attempt": 1})
END: Final[list[Entry]] = [step(2, "stop"), ("usage", {}), ("done", {"finish_reason": "stop"})]
CUT_OFF: Final[list[Entry]] = [("usage", {}), ("done", {"finish_reason": "cancelled"})]
CLOSED: Final = "the message was cancelled"
APPROVAL: Final = {"needs": "approval"}
REDONE: Final = of("tool_waiting", "book", **APPROVAL)


class Story:
    """A message with one step of these tools, its log, its effects and what people said."""

    def __init__(self, *tools: str, trouble: Trouble = Trouble.NONE) -> None:
        calls = tuple(CallPlan(mark(1, n), name, trouble) for n, name in enumerate(tools))
        plan = MessagePlan(1, 0, "m", "", "", "", None, None, False, (), ToolsPlan((calls,)))
        self.message = Message(plan)
        self.message.id = ID
        self.effects: list[dict[str, str]] = []
        self.log: list[Entry] = []

    def says(self, body: dict[str, object], status: int = 202, call_id: str = "c0") -> "Story":
        self.message.said.setdefault(call_id, []).append(Said(body, status))
        return self

    def had(self, name: str, *, number: int = 1, place: int = 0) -> "Story":
        self.effects.append({"tool": name, **did(f"c{place}", place, number)})
        return self

    def tells(self, *log: Entry, end: list[Entry] | None = None) -> "Story":
        self.log = [START, *log, *([step(1), *END] if end is None else end)]
        return self

    @property
    def frames(self) -> Any:
        raws = [
            f"event: {name}\ndata: {json.dumps(data)}\nid: 1-{n}\n\n".encode()
            for n, (name, data) in enumerate(self.log)
        ]
        return parse_log(raws)

    @property
    def problems(self) -> list[str]:
        effects: dict[str, list[dict[str, str]]] = {}
        for effect in self.effects:
            effects.setdefault(effect["key"], []).append(effect)
        return list(wrong_calls(self.message, self.frames, effects))


PAID: Final = [
    call("pay", 0),
    of("tool_start", "pay"),
    of("tool_result", "pay", result=did()),
]
SENT: Final = [
    call("send", 0),
    of("tool_waiting", "send", **APPROVAL),
    of("tool_start", "send"),
    of("tool_result", "send", result=did()),
]
BOOKED_TWICE: Final = [
    call("book", 0),
    of("tool_start", "book"),
    of("tool_waiting", "book", **APPROVAL),
    of("tool_start", "book"),
    of("tool_result", "book", result=did()),
]
OWN: Final = [
    call("local", 0),
    of("tool_waiting", "local", needs="result"),
    of("tool_result", "local", result={"own": 1}),
]
YES: Final[dict[str, object]] = {"approve": True}
NO: Final[dict[str, object]] = {"approve": False}
OURS: Final[dict[str, object]] = {"result": {"own": 1}}
LATE: Final = of("tool_error", "send", error="timed out: nobody answered within 5 seconds")
REFUSAL: Final = of("tool_error", "send", error="refused: the call was not approved")
OPEN: Final = call("send", 0), of("tool_waiting", "send", **APPROVAL)
LOST: Final = of("tool_error", "pay", error="outcome unknown: its worker was lost")


def cancelled(story: Story) -> Story:
    story.message.cancel_status = 202
    return story


RIGHT: Final[dict[str, Callable[[], Story]]] = {
    "a tool ran": lambda: Story("pay").had("pay").tells(*PAID),
    "its outcome is unknown": lambda: Story("pay").had("pay").tells(*PAID[:2], LOST),
    "it was approved": lambda: Story("send").had("send").says(YES).says(YES).tells(*SENT),
    "another answer came too late": lambda: (
        Story("send").had("send").says(YES).says(NO, 409).tells(*SENT)
    ),
    "it was refused": lambda: Story("send").says(NO).tells(*OPEN, REFUSAL),
    "nobody answered": lambda: Story("send").says(YES, 409).tells(*OPEN, LATE),
    "an answer whose reply was lost": lambda: Story("send").says(NO, 409).tells(*OPEN, REFUSAL),
    "asked again, and approved": lambda: (
        Story("book").had("book").had("book").says(YES).tells(*BOOKED_TWICE)
    ),
    "the client's own": lambda: Story("local").says(OURS).tells(*OWN),
    "a call cancelled after its answer": lambda: cancelled(
        Story("send").says(YES).tells(*OPEN, of("tool_error", "send", error=CLOSED), end=CUT_OFF)
    ),
    "no tool for it": lambda: Story("nothing").tells(
        call("nothing", 0), of("tool_error", "nothing", error="none")
    ),
}


@pytest.mark.parametrize("name", RIGHT)
def test_what_is_right_passes(name: str) -> None:
    assert RIGHT[name]().problems == []


WRONG: Final[dict[str, tuple[str, Callable[[], Story]]]] = {
    "open at the end": ("open at", lambda: Story("pay").had("pay").tells(*PAID[:2])),
    "open at a cancelled end": (
        "open at",
        lambda: cancelled(Story("send").tells(*OPEN, end=CUT_OFF)),
    ),
    "two outcomes": ("follows the end", lambda: Story("pay").had("pay").tells(*PAID, LOST)),
    "a result without a start": (
        "was not started",
        lambda: Story("pay").had("pay").tells(PAID[0], PAID[2]),
    ),
    "an effect without a start": ("1 effects of 0 starts", lambda: Story("pay").had("pay").tells(
        PAID[0], LOST
    )),
    "two effects of one start": (
        "2 effects of 1 starts",
        lambda: Story("fetch").had("fetch").had("fetch").tells(
            call("fetch", 0), of("tool_start", "fetch"), of("tool_result", "fetch", result=did())
        ),
    ),
    "`fail`, and started twice": (
        "was started 2 times",
        lambda: Story("pay").had("pay").tells(*PAID[:2], *PAID[1:]),
    ),
    "`ask`, and started again without it": (
        "without an approval",
        lambda: Story("book").had("book").says(YES).tells(
            *(event for event in BOOKED_TWICE if event != REDONE)
        ),
    ),
    "approval needed, and not asked for": (
        "without an approval",
        lambda: Story("send").had("send").tells(SENT[0], *SENT[2:]),
    ),
    "approved by nobody": ("nobody gave it", lambda: Story("send").had("send").tells(*SENT)),
    "refused by nobody": (
        "nobody gave it",
        lambda: Story("send").says(YES, 409).tells(*OPEN, REFUSAL),
    ),
    "a result without an effect": ("had no effect", lambda: Story("pay").tells(*PAID)),
    "another call's result": (
        "its result is another one",
        lambda: Story("pay").had("pay").tells(
            *PAID[:2], of("tool_result", "pay", result=did("c1"))
        ),
    ),
    "another one's effect": ("is of no call", lambda: Story("pay").had("pay").had(
        "pay", place=7
    ).tells(*PAID)),
    "an effect with other arguments": (
        "its effect is another one",
        lambda: Story("pay").had("fetch").tells(*PAID),
    ),
    "an answer that was taken and lost": (
        "was taken, and it ended",
        lambda: Story("send").says(YES).tells(*OPEN, LATE),
    ),
    "a refusal that was taken, and it ran": (
        "was taken, and it ended",
        lambda: Story("send").had("send").says(YES, 409).says(NO).tells(*SENT),
    ),
    "another result than the client's": (
        "was taken, and it ended",
        lambda: Story("local").says({"result": 8}).tells(*OWN),
    ),
    "two answers were taken": (
        "two answers were taken",
        lambda: Story("send").had("send").says(YES).says(NO).tells(*SENT),
    ),
    "an answer to what never waited": (
        "it never waited",
        lambda: Story("pay").had("pay").says(YES).tells(*PAID),
    ),
    "closed by nobody": (
        "nobody's answer was taken",
        lambda: Story("send").tells(*OPEN, of("tool_error", "send", error=CLOSED)),
    ),
    "the client's own without a wait": (
        "did not wait for the client",
        lambda: Story("local").tells(OWN[0], OWN[2]),
    ),
    "cut arguments reached a tool": (
        "not to reach a tool",
        lambda: Story("pay", trouble=Trouble.CUT).had("pay").tells(*PAID),
    ),
    "an id twice": (
        "a second call has the id",
        lambda: Story("pay", "pay").had("pay").tells(PAID[0], call("pay", 1, call_id="c0")),
    ),
    "other calls than the model made": (
        "the model made",
        lambda: Story("fetch").had("pay").tells(*PAID),
    ),
    "fewer calls than the model made": (
        "the model made",
        lambda: Story("pay", "pay").had("pay").tells(*PAID),
    ),
    "a step left out": ("its steps are", lambda: Story("pay").had("pay").tells(*PAID, end=END)),
    "fewer steps than the model made": (
        "it ended well after 1 steps",
        lambda: Story("pay").had("pay").tells(*PAID, end=[step(1), *END[1:]]),
    ),
    "an event of no call": ("is of no call", lambda: Story("pay").had("pay").tells(
        *PAID, of("tool_start", "pay", "c9")
    )),
    "progress before the start": ("reports before", lambda: Story("pay").had("pay").tells(
        PAID[0], ("data", {"name": "p", "value": 1, "tool_call_id": "c0"}), *PAID[1:]
    )),
    "another tool's name": ("names another tool", lambda: Story("pay").had("pay").tells(
        PAID[0], of("tool_start", "fetch"), PAID[2]
    )),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_found(name: str) -> None:
    said, story = WRONG[name]
    problems = story().problems
    assert any(said in problem for problem in problems), problems


def test_a_tools_events_are_never_taken_back() -> None:
    reset = ("reset", {"after": "1-1", "attempt": 2, "model": "m", "reason": "takeover"})
    story = Story("pay").had("pay").tells(*PAID[:2], reset, *PAID[1:])
    assert any("was taken back" in problem for problem in story.problems)


def test_an_effect_of_another_run_is_wrong(tmp_path: Path) -> None:
    file = tmp_path / "effects"
    file.write_text(json.dumps({"tool": "pay", **did()}) + "\n")
    effects = read_effects(file)
    assert [*unknown_effects(effects, [Story("pay").message])] == []
    assert [*unknown_effects(effects, [])] != []


def test_a_snapshot_is_held_to_the_log() -> None:
    story = Story("pay").tells(*PAID)
    shown = {"tool_call_id": "c0", "step": 1, "name": "pay", "arguments": {"mark": mark(1, 0)}}
    story.message.snapshot = {"tool_calls": [{**shown, "result": did(), "error": None}]}
    assert [*wrong_snapshot(story.message, story.frames)] == []
    for calls in ([], [{**shown, "result": None, "error": None}]):
        story.message.snapshot = {"tool_calls": calls}
        assert [*wrong_snapshot(story.message, story.frames)] != []
    story.message.snapshot = None
    assert [*wrong_snapshot(story.message, story.frames)] != []


def test_a_message_that_waits_under_a_lease_renewed_is_wrong() -> None:
    lease_ms = LEASE_SECONDS * 1000
    message_id = ID.encode()
    cases: list[tuple[list[tuple[bytes, bytes | None, float]], int]] = [
        ([(b"9", b"t", 0.0), (b"9", b"t", 0.0), (b"9", None, 0.0)], 0),  # its worker stopped
        ([(b"9", b"t", 0.0), (b"9", b"u", 5 * lease_ms)], 0),  # another one took it
        ([(b"9", b"t", 0.0), (b"10", b"t", 5 * lease_ms)], 0),  # it waits anew
        ([(b"9", b"t", 0.0), (b"9", b"t", 2 * lease_ms), (b"9", b"t", 3 * lease_ms)], 1),
    ]
    for looks, problems in cases:
        tally = Tally()
        waits = Waits(None, tally)  # type: ignore[arg-type]
        for look in looks:
            waits.take({message_id: look})
        assert len(tally.problems) == problems, looks


def test_a_plan_has_every_tool_trouble_answer_and_cancel() -> None:
    messages = make_plan(7, 600).messages
    calls = [call for message in messages for step in message.tools.steps for call in step]
    assert {call.name for call in calls} >= {"pay", "fetch", "book", "send", "local", "nothing"}
    assert {call.trouble for call in calls} == set(Trouble)
    assert {len(call.replies) for call in calls} == {0, 1, 2}
    with_tools = [message for message in messages if message.tools.steps]
    assert {message.tools.after_step for message in with_tools if message.cancel_after} == {
        True,
        False,
    }
    assert any(message.follows is not None for message in messages)


def test_the_provider_reads_the_steps_that_the_plan_tells_it_of() -> None:
    for message in make_plan(7, 60).messages:
        if message.tools.steps:
            told = read_option(message.tools.option)
            assert [[(c.mark, c.name, c.trouble) for c in s] for s in told] == [
                [(c.mark, c.name, c.trouble) for c in s] for s in message.tools.steps
            ]


def test_the_provider_counts_the_steps_of_the_present_message() -> None:
    called = {"role": "assistant", "tool_calls": [{}]}
    user, told = {"role": "user"}, {"role": "tool"}
    assert steps_done([user]) == 0
    assert steps_done([user, called, told, called, told]) == 2
    assert steps_done([user, called, told, {"role": "assistant"}, user, called, told]) == 1

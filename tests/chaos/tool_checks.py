"""What must be so of tool calls when everything has settled: logs, effects and answers."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from tests.chaos.senders import Message, Said
from tests.chaos.tool_plan import (
    ASK,
    DEFINED,
    FAIL,
    FAILS,
    NEED_APPROVAL,
    POLICIES,
    UNKNOWN,
    CallPlan,
    Trouble,
)
from tests.support.caller import kept_frames
from tests.support.sse_reader import ENDS, SseFrame

Effects = Mapping[str, Sequence[Mapping[str, str]]]

REFUSED: Final = "refused"
LATE: Final = "timed out: nobody answered"
CANCELLED: Final = "the message was cancelled"
LOST: Final = "its worker was lost"
_LASTING: Final = {"tool_waiting", "tool_start", "tool_result", "tool_error"}


@dataclass(slots=True)
class Seen:
    """A call as the log has it: what it waited for and when it began, in order, and its end."""

    call_id: str
    step: int
    place: int
    name: str
    arguments: dict[str, Any]
    way: list[str] = field(default_factory=list)  # approval, result, start
    end: SseFrame | None = None

    @property
    def error(self) -> str:
        """How it failed; empty: it did not."""
        return str(self.end.data["error"]) if self.end and self.end.event == "tool_error" else ""

    @property
    def started(self) -> bool:
        """Whether its tool ran after whatever it waited for."""
        return self.way[-1:] == ["start"]


def read_effects(file: Path) -> dict[str, list[Mapping[str, str]]]:
    """What the tools did, by idempotency keys."""
    effects: dict[str, list[Mapping[str, str]]] = {}
    for line in file.read_text().splitlines():
        made = json.loads(line)
        effects.setdefault(made["key"], []).append(made)
    return effects


def unknown_effects(effects: Effects, messages: Sequence[Message]) -> Iterator[str]:
    """Say which effects are of no message of the run."""
    known = {message.id for message in messages}
    for key in effects:
        if key.partition(":")[0] not in known:
            yield f"the effect {key} is of no message"


def wrong_calls(message: Message, frames: Sequence[SseFrame], effects: Effects) -> Iterator[str]:
    """Say what is wrong with a message's calls: their events, effects and answers."""
    try:
        kept = kept_frames(frames)
    except AssertionError:
        return  # wrong_log says so
    ids = {frame.id for frame in kept}
    for frame in frames:
        if frame.id not in ids and frame.event in _LASTING:
            yield f"{message}: {frame.id} {frame.event} was taken back"
    problems: list[str] = []
    calls = list(_read(kept, problems))
    problems += _wrong_steps(message, kept, calls)
    for call in calls:
        made = f"{message.id}:{call.step}:{call.call_id}"
        of = [*_wrong_end(call, made, message), *_wrong_answers(call, message)]
        of += _wrong_effects(call, effects.get(made, ()))
        problems += [f"{call.call_id} ({call.name}, {'>'.join(call.way)}): {one}" for one in of]
    keys = {f"{message.id}:{call.step}:{call.call_id}" for call in calls}
    for key in effects:
        if key.startswith(f"{message.id}:") and key not in keys:
            problems.append(f"the effect {key} is of no call")
    yield from (f"{message}: {one}" for one in problems)


def _read(kept: Sequence[SseFrame], problems: list[str]) -> Iterator[Seen]:
    calls: dict[str, Seen] = {}
    step = place = 0
    for frame in kept:
        call = calls.get(frame.data.get("tool_call_id") or "")
        if frame.event in ENDS or frame.event == "step":
            still = [one.call_id for one in calls.values() if one.end is None]
            if still:
                problems.append(f"open at {frame.id} {frame.event}: {', '.join(still)}")
            step, place = step + 1, 0
        elif frame.event == "tool_call":
            seen = Seen(
                frame.data["tool_call_id"],
                step + 1,
                place,
                frame.data["name"],
                frame.data["arguments"],
            )
            place += 1
            if call is not None:
                problems.append(f"{frame.id}: a second call has the id {call.call_id}")
            calls[seen.call_id] = seen
        elif frame.event in _LASTING or (frame.event == "data" and frame.data["tool_call_id"]):
            if call is None:
                problems.append(f"{frame.id} {frame.event} is of no call")
                continue
            problems += _go_on(call, frame)
    yield from calls.values()


def _go_on(call: Seen, frame: SseFrame) -> Iterator[str]:
    if call.end is not None:
        yield f"{frame.id} {frame.event} follows the end of {call.call_id}"
    if frame.event == "data":
        if not call.started:
            yield f"{frame.id}: {call.call_id} reports before it began"
        return
    if frame.data["name"] != call.name:
        yield f"{frame.id} {frame.event} names another tool than {call.name}"
    if frame.event == "tool_waiting":
        call.way.append(frame.data["needs"])
    elif frame.event == "tool_start":
        call.way.append("start")
    else:
        call.end = frame


def _wrong_steps(
    message: Message, kept: Sequence[SseFrame], calls: Sequence[Seen]
) -> Iterator[str]:
    planned = message.plan.tools.steps
    numbers = [frame.data["step"] for frame in kept if frame.event == "step"]
    if numbers != list(range(1, len(numbers) + 1)):
        yield f"its steps are {numbers}"
    if kept and kept[-1].data.get("finish_reason") == "stop" and len(numbers) != len(planned) + 1:
        yield f"it ended well after {len(numbers)} steps of {len(planned) + 1}"
    for step in sorted({*range(1, len(numbers) + 1), *(call.step for call in calls)}):
        made = [(call.name, call.arguments) for call in calls if call.step == step]
        wanted = planned[step - 1] if step <= len(planned) else ()
        asked = [(call.name, call.arguments) for call in wanted]
        if made != (asked if step <= len(numbers) else asked[: len(made)]):
            yield f"step {step} has the calls {made}, the model made {asked}"


def _plan_of(call: Seen, message: Message) -> CallPlan | None:
    steps = message.plan.tools.steps
    if call.step > len(steps) or call.place >= len(steps[call.step - 1]):
        return None
    return steps[call.step - 1][call.place]


def _wrong_end(call: Seen, key: str, message: Message) -> Iterator[str]:
    plan, result = _plan_of(call, message), call.end is not None and call.end.event == "tool_result"
    if call.end is None or plan is None:
        return  # said already
    if call.name == UNKNOWN or (plan.trouble is not Trouble.NONE):
        if call.way or result:
            yield "it was not to reach a tool, nor a person"
    elif call.name == DEFINED:
        if call.way != ["result"] and (call.way or result):
            yield "the client's own call did not wait for the client once"
    elif result:
        if not call.started:
            yield "it has a result, and was not started"
        if call.name in FAILS:
            yield "it has a result, and its tool gives none"
        elif call.end.data["result"] != {"key": key, "mark": plan.mark}:
            yield f"its result is another one: {call.end.data['result']}"


def _wrong_effects(call: Seen, effects: Sequence[Mapping[str, str]]) -> Iterator[str]:
    starts, policy = call.way.count("start"), POLICIES.get(call.name)
    if len(effects) > starts:
        yield f"{len(effects)} effects of {starts} starts"
    if call.name in POLICIES and call.end and call.end.event == "tool_result" and not effects:
        yield "it has a result, and had no effect"
    for effect in effects:
        if (effect["tool"], effect["mark"]) != (call.name, call.arguments.get("mark")):
            yield f"its effect is another one: {effect}"
    if policy == FAIL and starts > 1:
        yield f"it was started {starts} times"
    for at, event in enumerate(call.way):
        again = "start" in call.way[:at]
        consent = policy == ASK if again else call.name in NEED_APPROVAL
        if event == "start" and consent and call.way[at - 1] != "approval":
            yield "it was started without an approval"


def _wrong_answers(call: Seen, message: Message) -> Iterator[str]:
    said = message.said.get(call.call_id, [])
    taken = [one for one in said if one.status == 202]
    waits = sum(event != "start" for event in call.way)
    yield from _unheard_of(call, said)
    if taken and not waits:
        yield f"{taken[0].body} was taken, and it never waited"
    if waits != 1:
        return  # which of its waits an answer was for nobody can tell
    if any(one.body != taken[0].body for one in taken):
        yield f"two answers were taken: {[one.body for one in taken]}"
    if CANCELLED in call.error and message.cancel_status == 202:
        return
    if taken and not _came_of_it(call, taken[0]):
        yield f"{taken[0].body} was taken, and it ended {_end_of(call)}"
    late = call.error.startswith(LATE)
    if not taken and not late and not any(_came_of_it(call, one) for one in said):
        yield f"nobody's answer was taken, and it ended {_end_of(call)}"


def _unheard_of(call: Seen, said: Sequence[Said]) -> Iterator[str]:
    """What came of an answer that nobody gave."""
    approved = ("approval", "start") in pairwise(call.way)
    for answer, came in ((True, approved), (False, call.error.startswith(REFUSED))):
        if came and not any(one.body.get("approve") is answer for one in said):
            yield f"{answer} was its answer, and nobody gave it"


def _came_of_it(call: Seen, said: Said) -> bool:
    match said.body:
        case {"approve": True}:
            return "start" in call.way
        case {"approve": False}:
            return call.error.startswith(REFUSED)
        case {"error": error}:
            return call.error == error
    return bool(
        call.end
        and call.end.event == "tool_result"
        and call.end.data["result"] == said.body["result"]
    )


def _end_of(call: Seen) -> str:
    return "not" if call.end is None else f"{call.end.event} {call.end.data}"


def wrong_snapshot(message: Message, frames: Sequence[SseFrame]) -> Iterator[str]:
    """Say where the last snapshot's calls are not the log's."""
    if message.snapshot is None:
        yield f"{message}: nobody asked for its last snapshot"
        return
    try:
        calls = list(_read(kept_frames(frames), []))
    except AssertionError:
        return  # wrong_log says so
    expected = [
        (
            call.call_id,
            call.step,
            call.name,
            call.arguments,
            call.end.data.get("result") if call.end else None,
            call.error or None,
        )
        for call in calls
    ]
    names = ("tool_call_id", "step", "name", "arguments", "result", "error")
    shown = [tuple(call[name] for name in names) for call in message.snapshot["tool_calls"]]
    if shown != expected:
        yield f"{message}: its snapshot shows the calls {shown}, its log has {expected}"

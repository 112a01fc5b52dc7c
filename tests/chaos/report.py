"""What a run prints: what was done, what was counted, and what was wrong."""

from collections import Counter
from typing import Final

from tests.chaos.run import Run

_MOST: Final = 30  # problems shown
_TOOLS: Final = (
    *("tool_call", "tool_waiting", "tool_start", "tool_result", "tool_error", "waits seen"),
    *("calls lost", "calls refused", "calls not answered", "calls cancelled", "calls failed"),
    *("effects of tools", "replies 202", "replies 409"),
)


def report(run: Run) -> str:
    """A text of some lines; a failure names the seed that repeats it."""
    counts, ends = Counter(run.tally.counts), {}
    for name in list(counts):
        if name.startswith("ended "):
            ends[name.removeprefix("ended ")] = counts.pop(name)
    plan = f"seed {run.plan.seed}: {run.plan.seconds:.0f} s of faults"
    lines = [
        f"{plan}, {run.plan.rate:g} messages a second",
        f"all settled {run.settled_seconds:.1f} s after the last, {run.seconds:.0f} s in all",
        f"this process was late by {run.late_seconds:.1f} s at the most",
        f"faults: {_list(run.tally.faults)} ({run.tally.faults.total()} in all)",
        f"messages: {counts.pop('messages', 0)} ({_list(ends)})",
        f"readers: {_pop(counts, 'tails', 'events', 'resets', 'position_unknown')}",
        f"streams: {_pop(counts, 'connections', 'connections broken', 'resumes')}",
        f"tools: {_pop(counts, *_TOOLS)}",
        f"bills: {run.bills}",
        f"besides: {_list(counts)}",
    ]
    problems = run.tally.problems
    lines += [f"- {problem}" for problem in problems[:_MOST]]
    if len(problems) > _MOST:
        lines.append(f"and {len(problems) - _MOST} more")
    if problems:
        length = f"--minutes {run.plan.seconds / 60:g}"
        if run.plan.count is not None:
            length = f"--messages {run.plan.count}"
        lines.append(
            f"FAILED, {len(problems)} things are wrong; again:"
            f" python -m tests.chaos {length} --seed {run.plan.seed}"
            f" --rate {run.plan.rate:g} --pause {run.plan.pause:g}"
        )
    else:
        lines.append("every message ended once, and every reader has its log, event for event")
    return "\n".join(lines)


def _pop(counts: Counter[str], *names: str) -> str:
    return ", ".join(f"{name} {counts.pop(name, 0):,}" for name in names)


def _list(counts: "Counter[str] | dict[str, int]") -> str:
    return ", ".join(f"{name} {count:,}" for name, count in sorted(counts.items())) or "none"

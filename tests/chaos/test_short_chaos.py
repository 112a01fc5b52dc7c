"""A minute of chaos with a fixed seed: every message ends once, every reader has its log."""

from typing import Final

from tests.chaos.cluster import cluster
from tests.chaos.lasting import LOOKS
from tests.chaos.plan import make_plan
from tests.chaos.report import report
from tests.chaos.run import play

SEED: Final = 20261121
SECONDS: Final = 30.0


def test_whatever_breaks_every_reader_gets_every_event_once_and_an_end() -> None:
    with cluster() as running:
        run = play(running, make_plan(SEED, SECONDS))
    assert run.tally.problems == [], report(run)
    assert run.tally.faults.total() == len(run.plan.faults) > 10
    assert run.tally.counts["events"] > 5_000, report(run)
    assert run.tally.counts[LOOKS] > SECONDS / 2, report(run)
    for name in ("tool_result", "tool_error", "waits seen", "effects of tools", "replies 202"):
        assert run.tally.counts[name] > 0, report(run)

"""`python -m tests.chaos --minutes N --seed S`: break everything at random, check every reader."""

import argparse
import random
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.chaos.cluster import cluster
from tests.chaos.plan import MESSAGES_A_SECOND, SECONDS_BETWEEN_FAULTS, make_plan
from tests.chaos.report import report
from tests.chaos.run import play


def main(arguments: Sequence[str]) -> int:
    """Do one run; return the exit code: 1 where anything is wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=1, help="of faults (1)")
    parser.add_argument("--messages", type=int, help="so many, however many minutes they take")
    parser.add_argument("--seed", type=int, help="the plan's; without one a new one is drawn")
    parser.add_argument(
        "--rate", type=float, default=MESSAGES_A_SECOND, help="messages a second (%(default)g)"
    )
    parser.add_argument(
        "--pause",
        type=float,
        default=SECONDS_BETWEEN_FAULTS,
        help="seconds between faults (%(default)g)",
    )
    parser.add_argument(
        "--logs", type=Path, help="a folder to copy the processes' logs and all problems to"
    )
    chosen = parser.parse_args(arguments)
    seed = random.SystemRandom().randrange(1_000_000) if chosen.seed is None else chosen.seed
    # Whatever ends us unwinds the blocks that end what was started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    plan = make_plan(seed, chosen.minutes * 60, chosen.rate, chosen.pause, count=chosen.messages)
    with cluster(chosen.logs) as running:
        run = play(running, plan)
    sys.stdout.write(report(run) + "\n")
    if chosen.logs is not None:
        (chosen.logs / "problems").write_text("\n".join(run.tally.problems))
        (chosen.logs / "bills").write_text("\n".join(run.bills.rows))
        times = [
            f"{name} {at}" for name in ("outages", "pauses") for at in getattr(run.tally, name)
        ]
        (chosen.logs / "times").write_text("\n".join(times))
    return int(bool(run.tally.problems))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""`python -m tests.bench [ROW...] [--quick]`: measure, and print one table."""

import argparse
import signal
import sys
import time
from collections.abc import Callable, Sequence
from typing import Final

from tests.bench.machine import busy_share, description, raise_file_limit
from tests.bench.plan import Plan, say
from tests.bench.rows import (
    admission,
    chunks,
    delivery,
    job_start,
    leases,
    memory,
    polling,
    relay,
    replay,
    saving,
    survival,
    tool_steps,
    waiting,
)
from tests.bench.table import Line, markdown

_ROWS: Final[dict[str, Callable[[Plan], list[Line]]]] = {
    "common": delivery.common,
    "fan-out": delivery.fan_out,
    "overload": delivery.overload,
    "memory": memory.memory,
    "replay": replay.replay,
    "job-start": job_start.job_start,
    "chunks": chunks.chunks,
    "polling": polling.polling,
    "relay": relay.relay,
    "saving": saving.saving,
    "killed": survival.killed,
    "handover": survival.handover,
    "leases": leases.leases,
    "tool-steps": tool_steps.tool_steps,
    "waiting": waiting.waiting,
    "admission": admission.admission,
}


def main(arguments: Sequence[str]) -> int:
    """Run the rows that were named, or all; return the exit code: 1 where one is missed."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"of {', '.join(_ROWS)}")
    parser.add_argument("--quick", action="store_true", help="a smoke run of some minutes")
    chosen = parser.parse_args(arguments)
    unknown = [row for row in chosen.rows if row not in _ROWS]
    if unknown:
        parser.error(f"no row {unknown[0]}; there are {', '.join(_ROWS)}")
    raise_file_limit()
    # Whatever ends us unwinds the blocks that end what was started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    elsewhere = busy_share()
    began = time.monotonic()
    lines: list[Line] = []
    for row in chosen.rows or _ROWS:
        say(f"row {row}")
        lines += _ROWS[row](Plan(chosen.quick))
    quick = " --quick" if chosen.quick else ""
    took = f"Took {time.monotonic() - began:.0f} s{quick}; others used {elsewhere:.0%} of the CPU"
    sys.stdout.write("\n".join([*description(), took, "", markdown(lines), ""]))
    return int(any(line.met is False for line in lines))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""`python -m rejoin.worker.validator`: says what of a text does not fit its schema, a line each.

A process of its own, for a schema may hold a regular expression that never ends, and nothing in
Python stops one: here an alarm ends the process with it, also when the worker is gone.

A line in: `{"schema", "text", "seconds"}`. A line out: `{"faults": [...]}`, or
`{"unfit": reason}` where the schema cannot be applied.
"""

import json
import signal
import sys

from rejoin.shared.json_schema import faults


def main() -> None:
    """Answer until the input ends."""
    # What stops the worker is for the worker to heed: it validates on until it closes our input.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    while line := sys.stdin.buffer.readline():
        asked = json.loads(line)
        signal.setitimer(signal.ITIMER_REAL, asked["seconds"])
        answer = _answer(asked["schema"], asked["text"])
        signal.setitimer(signal.ITIMER_REAL, 0)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def _answer(schema: dict[str, object], text: str) -> dict[str, object]:
    try:
        return {"faults": faults(schema, text)}
    except RecursionError:
        return {"unfit": "it refers to itself without an end"}
    except Exception as error:  # noqa: BLE001  whatever a schema may do to its validator
        return {"unfit": f"{type(error).__name__}: {error}"[:300]}


if __name__ == "__main__":
    main()

"""What a run counts, and what it found wrong."""

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class Tally:
    """Counts by name, and each thing that must not be, in the order it was seen.

    `outages` are when Redis was away, or took nothing, and `pauses` when a worker stood still, in
    seconds since the epoch.
    """

    faults: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    outages: list[tuple[float, float]] = field(default_factory=list)
    pauses: list[tuple[float, float]] = field(default_factory=list)

    def wrong(self, problem: str) -> None:
        """Note a thing that must not be."""
        self.problems.append(problem)

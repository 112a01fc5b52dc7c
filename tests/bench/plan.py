"""How long each measurement takes, and a word on how far it is."""

import sys
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Plan:
    """A full run, or a quick one that only shows that everything works."""

    quick: bool

    def pick(self, full: float, quick: float) -> float:
        """One figure for a full run, another for a quick one."""
        return quick if self.quick else full

    @property
    def settle_seconds(self) -> float:
        """How long to wait between building something up and looking at it."""
        return self.pick(2, 0.5)

    def count(self, full: int, quick: int) -> int:
        """The same for whole numbers."""
        return quick if self.quick else full


def say(sentence: str) -> None:
    """Tell whoever waits; the table alone goes to stdout."""
    sys.stderr.write(f"bench: {sentence}\n")
    sys.stderr.flush()

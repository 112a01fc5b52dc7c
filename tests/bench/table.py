"""The table: its lines, and how they are printed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

_HEAD: Final = ("what", "Rejoin", "baseline, same run", "peer, same run", "owed", "")


@dataclass(frozen=True, slots=True)
class Line:
    """One line. `met` is None where nothing is owed."""

    what: str
    figure: str
    baseline: str = ""
    peer: str = ""
    owed: str = ""
    met: bool | None = None

    @property
    def cells(self) -> tuple[str, ...]:
        """What is printed of it."""
        verdict = "" if self.met is None else ("met" if self.met else "MISSED")
        return self.what, self.figure, self.baseline, self.peer, self.owed, verdict


def markdown(lines: Sequence[Line]) -> str:
    """The lines as a Markdown table, readable as plain text too."""
    rows = [_HEAD, *(line.cells for line in lines)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    rule = tuple("-" * width for width in widths)
    return "\n".join(_joined(row, widths) for row in (rows[0], rule, *rows[1:]))


def _joined(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
    return f"| {' | '.join(padded)} |"

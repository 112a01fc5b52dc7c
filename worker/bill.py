"""What the model calls of a run used: all of it, and what no entry of the log tells yet."""

from collections.abc import Iterable, Mapping

from rejoin.shared.events import Usage
from rejoin.shared.spent import Unseen, estimated, sum_of, total


class Bill:
    """The sum of a message's model calls, and of those that the log does not tell of.

    `earlier` is what each attempt of other workers used, by its number; None: nothing. `unseen` are
    calls of lost workers that gave nothing, and are not in the sum before `shown`. `present` is
    what the calls of the present attempt used; None: it called nobody.
    """

    def __init__(
        self, earlier: Mapping[int, Usage | None] | None = None, unseen: Iterable[Unseen] = ()
    ) -> None:
        self.present: Usage | None = None
        self._earlier = dict(earlier or {})
        self._own: Usage | None = None  # also of attempts before the present one
        self._untold: Usage | None = None
        self._unseen = list(unseen)
        self._unseen_untold: dict[int, Usage] = {}
        self._unseen_told: set[int] = set()

    @property
    def spent(self) -> Usage | None:
        """The sum of all attempts; None: no provider was called."""
        return sum_of([*self._earlier.values(), self._own])

    @property
    def untold(self) -> Usage | None:
        """What finished no step, for the next entry that says so to later attempts."""
        return sum_of([self._untold, *self._unseen_untold.values()])

    def add(self, used: Usage) -> None:
        """Add one call."""
        self._own = total(self._own, used)
        self._untold = total(self._untold, used)
        self.present = total(self.present, used)

    def shown(self, chars: int) -> None:
        """Add what was lost unseen: it was shown what the next call is shown, so much text."""
        unseen, self._unseen = self._unseen, []
        for call in unseen:
            used = estimated(chars, 0, 0, model=call.model, at=call.at)
            before = self._earlier.get(call.attempt)
            self._earlier[call.attempt] = total(before, used)
            self._unseen_untold[call.attempt] = used

    def refused(self) -> None:
        """Note a call that the provider refused before it gave anything: it is not billed."""
        self._own = self._own or Usage()

    def tell(self) -> Usage | None:
        """Return what is untold, which the caller writes."""
        told = self.untold
        self._unseen_told |= self._unseen_untold.keys()
        self._untold, self._unseen_untold = None, {}
        return told

    def begin(self) -> None:
        """Begin another attempt of the same run."""
        self.present = None

    def correct(self, late: Mapping[int, Usage]) -> dict[int, Usage]:
        """Take what other workers told late of their attempts; return what of it counts.

        Where the log tells already what this worker guessed of one, the guess stands.
        """
        counts = {
            attempt: used
            for attempt, used in late.items()
            if attempt in self._earlier and attempt not in self._unseen_told
        }
        self._earlier |= counts
        for attempt in counts:
            self._unseen_untold.pop(attempt, None)
        return counts

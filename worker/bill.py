"""What the model calls of a run used: all of it, and what no entry of the log tells yet."""

from collections.abc import Iterable

from rejoin.shared.events import Usage
from rejoin.shared.spent import Unseen, estimated, total


class Bill:
    """The sum of a message's model calls, and of those that the log does not tell of.

    `spent` is the sum of all attempts; None: no provider was called. `untold` is what calls of the
    present attempt used that finished no step, for the next entry that says so to later attempts.
    `unseen` are calls of lost workers that gave nothing, and are not in the sum before `shown`.
    """

    def __init__(self, spent: Usage | None, unseen: Iterable[Unseen] = ()) -> None:
        self.spent = spent
        self.untold: Usage | None = None
        self._unseen = list(unseen)

    def add(self, used: Usage) -> None:
        """Add one call."""
        self.spent = total(self.spent, used)
        self.untold = total(self.untold, used)

    def shown(self, chars: int) -> None:
        """Add what was lost unseen: it was shown what the next call is shown, so much text."""
        unseen, self._unseen = self._unseen, []
        for call in unseen:
            self.add(estimated(chars, 0, 0, model=call.model, at=call.at))

    def refused(self) -> None:
        """Note a call that the provider refused before it gave anything: it is not billed."""
        self.spent = self.spent or Usage()

    def tell(self) -> Usage | None:
        """Return what is untold, which the caller writes."""
        told, self.untold = self.untold, None
        return told

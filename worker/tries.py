"""How often each of a message's models failed at its present step, and for how long by now."""

from collections.abc import Mapping
from time import monotonic


class Tries:
    """One run's. `failures` are from a run before, which counts on; its time does not."""

    def __init__(self, failures: Mapping[str, int] | None = None) -> None:
        self.failures: dict[str, int] = dict(failures or {})
        self._since = dict[str, float]()

    def fail(self, model: str) -> int:
        """Note that a model failed; how often it has by now."""
        self.failures[model] = self.failures.get(model, 0) + 1
        self._since.setdefault(model, monotonic())
        return self.failures[model]

    def seconds(self, model: str) -> float:
        """How long ago the model failed for the first time; 0: it has not, in this run."""
        since = self._since.get(model)
        return 0.0 if since is None else monotonic() - since

    def forget(self, model: str) -> None:
        """Count a model's tries anew: it is given up, or it has answered something."""
        self.failures.pop(model, None)
        self._since.pop(model, None)

    def clear(self) -> None:
        """Count all tries anew, for another step."""
        self.failures.clear()
        self._since.clear()

"""Declares an agent: an async generator function of the user's own, as the model `agent/NAME`."""

import inspect
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import overload

from rejoin.shared.catalogue import AGENTS, is_agent_name
from rejoin.worker.agents.given import Run
from rejoin.worker.agents.words import Said

Function = Callable[[Run], AsyncGenerator[Said, None]]


@dataclass(frozen=True, slots=True)
class Agent:
    """One agent, called as its function is."""

    name: str
    function: Function

    @property
    def model(self) -> str:
        """Its name as a model's."""
        return f"{AGENTS}/{self.name}"

    def __call__(self, run: Run) -> AsyncGenerator[Said, None]:
        """Begin a run of it."""
        return self.function(run)


@overload
def agent(function: Function, /) -> Agent: ...


@overload
def agent(*, name: str) -> Callable[[Function], Agent]: ...


def agent(
    function: Function | None = None, /, *, name: str | None = None
) -> Agent | Callable[[Function], Agent]:
    """Make an async generator function the model `agent/NAME`; its own name where none is given.

    It takes one argument, a `Run`, and yields text (`str`), `Reasoning`, `Data`, `Step`, or the
    events of tools that it runs itself.

    Raises:
        TypeError: it is no async generator function, or takes something else than one argument.
        ValueError: the name is not of 1 to 64 letters, digits, `_`, `.` and `-`.
    """
    if function is None:
        return lambda given: _declared(given, name)
    return _declared(function, name)


def _declared(function: Function, name: str | None) -> Agent:
    if not inspect.isasyncgenfunction(function):
        raise TypeError(f"an agent is an async generator function (async def, yield): {function!r}")
    try:
        inspect.signature(function).bind(None)
    except TypeError as error:
        raise TypeError(f"an agent takes one argument, its run: {function!r}: {error}") from error
    name = function.__name__ if name is None else name
    if not is_agent_name(name):
        raise ValueError(f"an agent's name has 1 to 64 letters, digits, _, . and -: {name!r}")
    return Agent(name, function)

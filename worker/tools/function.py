"""`@tool` makes a Python function a tool: its type hints are the schema, its docstring the text."""

import functools
import inspect
import math
import re
from collections.abc import Callable, Mapping
from types import FunctionType
from typing import Final, Generic, Literal, ParamSpec, TypeVar, overload

from rejoin.worker.tools.base import Call, OnUnknownOutcome
from rejoin.worker.tools.docstring import described
from rejoin.worker.tools.signature import Signature
from rejoin.worker.tools.threads import Threads

DEFAULT_TIMEOUT_SECONDS: Final = 60.0

P = ParamSpec("P")
R = TypeVar("R", covariant=True)
Policy = OnUnknownOutcome | Literal["retry", "ask", "fail"]

_NAME: Final = re.compile(r"[a-zA-Z0-9_-]{1,64}")


class FunctionTool(Generic[P, R]):
    """A function as a tool. Called, it is the function itself."""

    def __init__(
        self,
        function: Callable[P, R],
        *,
        name: str | None,
        description: str | None,
        timeout: float,
        needs_approval: bool,
        on_unknown_outcome: Policy,
    ) -> None:
        if not isinstance(function, FunctionType):
            raise TypeError(f"@tool takes a function, not {type(function).__name__}")
        self.name = function.__name__ if name is None else name
        try:
            _check_function(function)
            _check_settings(self.name, timeout, on_unknown_outcome)
            about, arguments = described(function.__doc__)
            self._signature = Signature(function, arguments)
            self.on_unknown_outcome = OnUnknownOutcome(on_unknown_outcome)
        except TypeError as error:
            raise TypeError(f"the tool {self.name}: {error}") from error
        except ValueError as error:
            raise ValueError(f"the tool {self.name}: {error}") from error
        self.description = about if description is None else inspect.cleandoc(description)
        self.timeout_seconds = float(timeout)
        self.needs_approval = needs_approval
        self.function: FunctionType = function
        self._threads = Threads()
        functools.update_wrapper(self, function)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function, as if it were not decorated."""
        returned: R = self.function(*args, **kwargs)
        return returned

    def __repr__(self) -> str:
        """Say what it is."""
        return f"<tool {self.name}>"

    @property
    def parameters(self) -> Mapping[str, object]:
        """The JSON schema of its arguments."""
        return self._signature.schema

    def check(self, arguments: Mapping[str, object]) -> None:
        """Refuse arguments that the function cannot take.

        Raises:
            ToolError: they do not fit; the text says where.
        """
        self._signature.bind(arguments, _NOBODY)

    async def run(self, arguments: Mapping[str, object], call: Call) -> object:
        """Call the function, one that blocks in a thread, and return what it returns.

        Raises:
            ToolError: the arguments do not fit, or the function says so; whatever else it raises
                comes through.
        """
        bound = functools.partial(self.function, **self._signature.bind(arguments, call))
        if inspect.iscoroutinefunction(self.function):
            return await bound()
        returned = await self._threads.run(bound)
        return await returned if inspect.isawaitable(returned) else returned


@overload
def tool(function: Callable[P, R], /) -> FunctionTool[P, R]: ...


@overload
def tool(
    *,
    name: str | None = None,
    description: str | None = None,
    timeout: float = DEFAULT_TIMEOUT_SECONDS,
    needs_approval: bool = False,
    on_unknown_outcome: Policy = "fail",
) -> Callable[[Callable[P, R]], FunctionTool[P, R]]: ...


def tool(
    function: Callable[P, R] | None = None,
    /,
    *,
    name: str | None = None,
    description: str | None = None,
    timeout: float = DEFAULT_TIMEOUT_SECONDS,
    needs_approval: bool = False,
    on_unknown_outcome: Policy = "fail",
) -> FunctionTool[P, R] | Callable[[Callable[P, R]], FunctionTool[P, R]]:
    """Make a function a tool that models may call; with or without arguments of its own.

    An `async def` runs in the worker's loop and must not block it; a `def` runs in a thread. A
    parameter whose type is `Call` is given the call itself, and no model hears of it.

    Args:
        function: What to call; all its parameters can be named and have types that JSON can fill.
        name: What models and requests call it; the function's own name if left out.
        description: What it does, for the model; the docstring if left out.
        timeout: Seconds that a call may take. The thread of a `def` cannot be stopped: it goes on,
            and what it returns is dropped.
        needs_approval: Whether a person has to consent to each call.
        on_unknown_outcome: What to do with a call whose worker was lost before its result: `retry`
            (it may then be done twice), `ask` a person, or `fail`, which tells the model.

    Raises:
        TypeError: the function, or one of its parameters, can be no tool's.
        ValueError: one of the other arguments is wrong.
    """

    def made(function: Callable[P, R]) -> FunctionTool[P, R]:
        return FunctionTool(
            function,
            name=name,
            description=description,
            timeout=timeout,
            needs_approval=needs_approval,
            on_unknown_outcome=on_unknown_outcome,
        )

    return made if function is None else made(function)


_NOBODY: Final = Call("", "", 0, "")


def _check_function(function: FunctionType) -> None:
    plain = inspect.unwrap(function)
    if inspect.isgeneratorfunction(plain) or inspect.isasyncgenfunction(plain):
        raise TypeError("a tool returns one value: report progress by Call.report")


def _check_settings(name: str, timeout: float, on_unknown_outcome: str) -> None:
    if not _NAME.fullmatch(name):
        raise ValueError("a name has 1 to 64 of a-z, A-Z, 0-9, _ and -")
    if isinstance(timeout, bool) or not (math.isfinite(timeout) and timeout > 0):
        raise ValueError("timeout is a number of seconds, more than 0")
    if on_unknown_outcome not in set(OnUnknownOutcome):
        raise ValueError("on_unknown_outcome is one of retry, ask and fail")

"""What every tool gives: a description for the model, its bounds, and a way to run it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

Report = Callable[[str, object], None]


class OnUnknownOutcome(StrEnum):
    """What to do with a call that was started and whose worker was lost before its result."""

    RETRY = "retry"  # it may run twice: the tool is idempotent
    ASK = "ask"  # a person decides
    FAIL = "fail"  # the model is told that nobody knows


def _unheard(name: str, value: object) -> None:
    """Nobody listens."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a tool, as the tool sees it.

    `idempotency_key` is the same each time this very call is run, on any worker: message, step
    and call id. `report` tells clients of progress: a name, and any value that JSON has.
    """

    message_id: str
    conversation_id: str
    step: int
    tool_call_id: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    report: Report = _unheard

    @property
    def idempotency_key(self) -> str:
        """What tells this call from every other one."""
        return f"{self.message_id}:{self.step}:{self.tool_call_id}"


class Tool(Protocol):
    """One tool. One object serves a whole worker process, many calls at once."""

    @property
    def name(self) -> str:
        """Its name, as models and requests say it."""

    @property
    def description(self) -> str:
        """What it does, for the model."""

    @property
    def parameters(self) -> Mapping[str, object]:
        """The JSON schema of its arguments."""

    @property
    def timeout_seconds(self) -> float:
        """How long a call may take."""

    @property
    def needs_approval(self) -> bool:
        """Whether a person has to consent to each call."""

    @property
    def on_unknown_outcome(self) -> OnUnknownOutcome:
        """What to do where nobody knows whether a call was done."""

    def check(self, arguments: Mapping[str, object]) -> None:
        """Refuse arguments that the tool cannot take, before anybody is asked for consent.

        Raises:
            ToolError: they do not fit; the text says where.
        """

    async def run(self, arguments: Mapping[str, object], call: Call) -> object:
        """Run one call and return what JSON can hold. Its caller keeps the time.

        Raises:
            ToolError: it failed; the text is shown to the model.
        """

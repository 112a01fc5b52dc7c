"""What a message has so far: its finished steps, and the one whose model call is over."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

from rejoin.shared.events import Fields, FinishReason
from rejoin.shared.fold import Kept, Message
from rejoin.shared.history import stored_call
from rejoin.shared.tool_calls import CallState, calls_of
from rejoin.shared.tool_events import ToolError, ToolResult
from rejoin.worker.answered import AnsweredStep


@dataclass(slots=True)
class Called:
    """A step whose model call is over, and whose calls are not, or only just.

    `number` is the step's, from 1; `model` is the whole name of the one that called.
    """

    number: int
    text: str
    model: str
    finish_reason: FinishReason
    thinking: Sequence[Mapping[str, object]]
    calls: list[CallState]

    @property
    def open_calls(self) -> list[CallState]:
        """Those that have neither result nor error."""
        return [call for call in self.calls if call.ended is None]


@dataclass(frozen=True, slots=True)
class Partial:
    """The visible text of a model call that is not over; `thought`: it gave thinking text too."""

    text: str
    thought: bool = False


@dataclass(slots=True)
class Progress:
    """How far a message came. Made from its log at a takeover, and kept up as it goes on.

    `text_chars` is the visible text of all of it. `present` is the step whose calls are to be
    answered; None: the next thing is a model call. `broken` are the calls of a model call that
    is not over, where they stay in the log, and `partial` is its text, where there is more of it
    than white space; `begun`: there was something of such a call.
    `checkpoint` is what an agent noted with the last finished step, and `model` is that of the
    newest attempt: what it fell back from is not asked again.
    """

    steps: list[AnsweredStep] = field(default_factory=list)
    text_chars: int = 0
    present: Called | None = None
    broken: list[CallState] = field(default_factory=list)
    begun: bool = False
    checkpoint: object = None
    partial: Partial | None = None
    model: str | None = field(default=None, compare=False)

    @property
    def open_calls(self) -> list[CallState]:
        """The calls that have to be closed before the message may end."""
        broken = (call for call in self.broken if call.ended is None)  # an agent's may have ended
        return [*broken, *(self.present.open_calls if self.present else ())]

    @property
    def call_ids(self) -> set[str]:
        """The ids that the message's calls have."""
        finished = {call.tool_call_id for step in self.steps for call in step.calls}
        present = self.present.calls if self.present else ()
        return finished | {call.tool_call_id for call in (*self.broken, *present)}

    def finish(self, called: Called) -> None:
        """Take the present step, all of whose calls are answered, as finished."""
        self.steps.append(_answered(called.text, called.model, called.thinking, called.calls))
        self.present = self.partial = None

    def checkpoint_of(self, model: str) -> object:
        """The checkpoint with which an agent goes on; None where the last step was another's."""
        return self.checkpoint if self.steps and self.steps[-1].model == model else None


def progress_of(message: Message) -> Progress:
    """Return how far the log says that the message came."""
    calls: dict[int, list[CallState]] = {}
    for call in calls_of(message):
        calls.setdefault(call.step, []).append(call)
    made, texts, over = Progress(text_chars=len(message.text)), list[str](), None
    thought = False
    made.model = str(message.attempts[-1]["model"]) if message.attempts else None
    for event in message.kept:
        match event.name:
            case "text":
                texts.append(str(event.fields["text"]))
            case "reasoning":
                thought = True
            case "tool_call" if "usage" in event.private:
                over = event.private
            case "step":
                own, (model, thinking) = calls.pop(len(made.steps) + 1, ()), _told(event.private)
                made.steps.append(_answered("".join(texts), model, thinking, own))
                made.checkpoint = event.private.get("checkpoint")
                texts, over, made.begun, thought = [], None, False, False
        made.begun = made.begun or event.name in ("text", "reasoning", "tool_call")
    number = len(made.steps) + 1
    if over is None:
        made.broken = calls.get(number, [])
        if (text := "".join(texts)).strip():
            made.partial = Partial(text, thought)
    else:
        reason = FinishReason(str(over.get("finish_reason", FinishReason.TOOL_CALLS)))
        text, own = "".join(texts), calls.get(number, [])
        model, thinking = _told(over)
        made.present = Called(number, text, model, reason, thinking, own)
        made.begun = False
    return made


def end_call(call: CallState, event: ToolResult | ToolError) -> None:
    """Note how a call ended, as a fold of its event would."""
    if isinstance(event, ToolResult):
        call.ended = Kept(None, event.name, {"result": event.result})
    else:
        call.ended = Kept(None, event.name, {"error": event.error})


def _told(private: Fields) -> tuple[str, Sequence[Mapping[str, object]]]:
    thinking = cast(Sequence[Mapping[str, object]], private.get("thinking", ()))
    return str(private.get("model", "")), thinking


def _answered(
    text: str,
    model: str,
    thinking: Sequence[Mapping[str, object]],
    calls: Iterable[CallState],
) -> AnsweredStep:
    return AnsweredStep(text, model, thinking, list(map(stored_call, calls)))

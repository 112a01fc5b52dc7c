"""An answer as turns for a model: step by step, each with its calls and their results."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from rejoin.shared.db.rows import StoredCall, StoredMessage
from rejoin.shared.events import dumps
from rejoin.worker.providers.base import ToolCall, Turn


@dataclass(frozen=True, slots=True)
class AnsweredStep:
    """One model call of an answer, and what came of the tools that it called.

    `model` is the whole name of the one that gave it, and `thinking` its thinking blocks, as its
    provider wants them back. Each of the `calls` has a result or an error; one that has neither
    returned JSON's null.
    """

    text: str
    model: str = ""
    thinking: Sequence[Mapping[str, object]] = ()
    calls: Sequence[StoredCall] = ()


def turns_of_steps(steps: Sequence[AnsweredStep], provider: str) -> Iterator[Turn]:
    """The steps as turns for one of `provider`'s models, which alone sees its own thinking.

    The same for an answer that goes on and for one of the history. Nothing where it is empty.
    """
    text, thinking = "", list[Mapping[str, object]]()
    for left, step in zip(reversed(range(len(steps))), steps, strict=True):
        text += step.text
        if step.model.partition("/")[0] == provider:
            thinking += step.thinking
        if not step.calls and left:
            continue  # it goes on in the next
        if step.calls or text.strip():
            asked = (ToolCall(call.tool_call_id, call.name, call.arguments) for call in step.calls)
            yield Turn("assistant", text, tuple(asked), thinking=tuple(thinking))
            yield from map(_result, step.calls)
        text, thinking = "", []


def steps_of(message: StoredMessage) -> list[AnsweredStep]:
    """A stored answer's steps; the last one is what followed the last one that was finished.

    Of a message that has not ended, a call that nobody answered yet is left out.
    """
    answered: dict[int, list[StoredCall]] = {}
    for call in message.tool_calls:
        calls = answered.setdefault(call.step, [])
        if message.ended or call.answered:
            calls.append(call)
    rest, made = message.text, list[AnsweredStep]()
    for number, step in enumerate(message.steps, 1):
        text, rest = rest[: step.text_chars], rest[step.text_chars :]
        made.append(AnsweredStep(text, step.model, step.thinking, answered.pop(number, ())))
    for number in range(len(made) + 1, max(answered, default=0) + 1):
        text, rest = rest, ""
        made.append(AnsweredStep(text, calls=answered.get(number, ())))
    return [*made, AnsweredStep(rest)] if rest or not made else made


def _result(call: StoredCall) -> Turn:
    failed = call.error is not None
    said = call.error if failed else call.result
    text = said if isinstance(said, str) else dumps(said)
    return Turn("tool", text, tool_call_id=call.tool_call_id, is_error=failed)

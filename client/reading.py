"""Reads a message as it grows: its events folded, and what a `reset` takes back told."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

from rejoin.client.tail import Event, Tail
from rejoin.shared.fold import Message


@dataclass(frozen=True, slots=True)
class Change:
    """What one event did: text it added at the end, or that text was taken back before it.

    Thinking and events of tools that are taken back count too. After `taken_back` the message
    itself is what stands.
    """

    event: Event
    added: str = ""
    taken_back: bool = False


async def changes(tail: Tail, message: Message) -> AsyncIterator[Change]:
    """Feed `message` from `tail` and yield what each event changed.

    A `reset` that names an event `message` lacks is a gap: the tail then starts over, and so
    does the message. Raises whatever iterating the tail does.
    """
    async for event in tail:
        if event.name not in ("start", "reset"):
            message.add(event.id, event.name, event.data)
            added = str(event.data["text"]) if event.name == "text" else ""
            yield Change(event, added=added)
            continue
        before = _standing(message)
        message.add(event.id, event.name, event.data)
        if message.gap:
            message.kept.clear()
            tail.start_over()
        yield Change(event, taken_back=_standing(message) != before)


def _standing(message: Message) -> tuple[object, ...]:
    tools = [
        (event.name, event.fields)
        for event in message.kept
        if event.name.startswith("tool_") or event.name == "data"
    ]
    return message.text, message.reasoning, tools

"""One content block of a streamed message: its deltas become chunks, its whole is kept."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rejoin.shared.events import dumps
from rejoin.worker.providers.base import (
    Chunk,
    ReasoningChunk,
    TextChunk,
    ThinkingChunk,
    ToolCall,
    ToolCallChunk,
    WorkingChunk,
)
from rejoin.worker.providers.chunk_json import NoChunk, unasked_tool
from rejoin.worker.providers.error_objects import protocol
from rejoin.worker.providers.sse import MAX_EVENT_BYTES


@dataclass(frozen=True, slots=True)
class Offered:
    """What the model was offered to call: `tools`, and one whose arguments are the answer."""

    tools: bool = False
    answer: str | None = None


@dataclass(slots=True)
class Block:
    """A block from its `content_block_start` on; of an unknown kind it gives nothing."""

    start: Mapping[str, object]
    offered: Offered
    text: list[str] = field(default_factory=list)
    arguments: list[str] = field(default_factory=list)
    arguments_chars: int = 0
    signature: str | None = None
    citations: list[object] = field(default_factory=list)

    @property
    def kind(self) -> object:
        """Its type, in the API's words."""
        return self.start.get("type")

    @property
    def is_answer(self) -> bool:
        """Whether it calls the tool whose arguments are the answer."""
        name = self.offered.answer
        return name is not None and self.kind == "tool_use" and self.start.get("name") == name

    @property
    def is_call(self) -> bool:
        """Whether it calls a tool of the request's own."""
        return self.kind == "tool_use" and not self.is_answer

    @property
    def text_chars(self) -> int:
        """How long its visible text is so far."""
        if self.kind != "text":
            return 0
        return len(str(self.start.get("text") or "")) + sum(map(len, self.text))

    def begin(self) -> Sequence[Chunk]:
        """Give what its start holds, which is nothing as a rule.

        Raises:
            ProviderError: it calls a tool and none was offered.
        """
        if self.is_call and not self.offered.tools:
            raise unasked_tool()
        match self.start:
            case {"type": "text", "text": str(text)} if text:
                return (TextChunk(text),)
            case {"type": "thinking", "thinking": str(text)} if text:
                return (ReasoningChunk(text),)
        return ()

    def feed(self, delta: Mapping[str, object]) -> Sequence[Chunk]:
        """Give what a delta says; one of an unknown type says nothing.

        Raises:
            NoChunk: it lacks what its type has.
            ProviderError: arguments without an end.
        """
        match delta:
            case {"type": "text_delta", "text": str(text)}:
                self.text.append(text)
                return (TextChunk(text),) if text else ()
            case {"type": "thinking_delta", "thinking": str(text)}:
                self.text.append(text)
                return (ReasoningChunk(text),) if text else ()
            case {"type": "input_json_delta", "partial_json": str(text)}:
                return self._feed_arguments(text)
            case {"type": "signature_delta", "signature": str(signature)}:
                self.signature = signature
            case {"type": "citations_delta", "citation": citation}:
                self.citations.append(citation)
            case {"type": "text_delta" | "thinking_delta" | "input_json_delta"}:
                raise NoChunk
        return ()

    @property
    def is_bare_call(self) -> bool:
        """Whether it calls a tool without arguments; or they were cut off before the first."""
        given = self.start.get("input") or "".join(self.arguments).strip()
        return self.is_call and not given

    def end(self, *, cut: bool = False) -> Sequence[Chunk]:
        """Give what only the whole block is: its thinking with the signature, or its call.

        `cut`: it is the answer's last, and that was cut off.
        """
        if self.kind in ("thinking", "redacted_thinking"):
            return (ThinkingChunk(self.whole()),)
        if self.is_answer:
            said = self.start.get("input")
            return () if "".join(self.arguments) or not said else (TextChunk(dumps(said)),)
        return (self._call(cut=cut),) if self.is_call else ()

    def whole(self) -> dict[str, object]:
        """The block as the API takes it back: what it sent, unchanged."""
        whole = dict(self.start)
        name = {"text": "text", "thinking": "thinking"}.get(str(self.kind))
        if name is not None:
            whole[name] = "".join([str(whole.get(name) or ""), *self.text])
        if self.signature is not None:
            whole["signature"] = self.signature
        if self.citations:
            whole["citations"] = self.citations
        if self.arguments:
            whole["input"] = self._input() or {}
        return whole

    def _feed_arguments(self, text: str) -> Sequence[Chunk]:
        self.arguments.append(text)
        self.arguments_chars += len(text)
        if self.arguments_chars > MAX_EVENT_BYTES:  # as one event, so many of them
            raise protocol(f"a tool's arguments of more than {MAX_EVENT_BYTES} characters")
        if not text:
            return ()
        return (TextChunk(text) if self.is_answer else WorkingChunk(len(text)),)

    def _call(self, *, cut: bool) -> ToolCallChunk:
        arguments = None if cut and self.is_bare_call else self._input()
        call_id, name = (str(self.start.get(member) or "") for member in ("id", "name"))
        broken = "".join(self.arguments) if arguments is None else None
        return ToolCallChunk(ToolCall(call_id, name, arguments or {}), broken)

    def _input(self) -> dict[str, object] | None:
        """The arguments, {} where there are none; None where they are no JSON object."""
        said = "".join(self.arguments)
        if not said.strip():
            # Servers that only resemble the API send them all with the start.
            given = self.start.get("input")
            return given if isinstance(given, dict) else {}
        try:
            value = json.loads(said)
        except (ValueError, RecursionError):
            return None
        return value if isinstance(value, dict) else None

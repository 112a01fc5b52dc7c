"""An accepted request, as it is stored for the worker."""

import json
from dataclasses import asdict, dataclass, field
from typing import Literal

from rejoin.shared import content
from rejoin.shared.content import Content, chars_of
from rejoin.shared.errors import RequestUnreadable
from rejoin.shared.events import dumps

Recover = Literal["restart", "continue"]


@dataclass(frozen=True, slots=True)
class StoredTurn:
    """One message of the history the caller sent; `role`: system, user or assistant.

    `id` is its own in the conversation, given when it was accepted.
    """

    role: str
    content: Content
    id: str = ""


@dataclass(frozen=True, slots=True)
class ResponseFormat:
    """The JSON schema that the answer's text is to fit; `schema` is the schema itself.

    `strict` None: as the provider has it by itself.
    """

    name: str
    schema: dict[str, object]
    description: str | None = None
    strict: bool | None = None


@dataclass(frozen=True, slots=True)
class ToolDefinition:
    """A tool that the client runs itself; `parameters` is the JSON schema of its arguments."""

    name: str
    description: str
    parameters: dict[str, object]


@dataclass(frozen=True, slots=True)
class StoredRequest:
    """What a worker needs to answer a message. None: the provider's own default.

    `system` goes before the whole path to `turns` and is no message of the conversation.
    `parent_id` is the message after which these turns come in their conversation, None where they
    begin one. `turns` are the caller's own; with `regenerate` there are none, and the message
    answers the same turn as the one that it names. `beside` is the message with which the parent
    was sent, where that is a turn that was not saved yet: only that one's request has it.
    `tools` are names of registered ones, and definitions of the client's own. `recover` is what
    becomes of a step that broke off: it is done again, or its partial text is gone on with.
    """

    model: str
    turns: list[StoredTurn]
    system: Content | None = None
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    stop: list[str] = field(default_factory=list)
    reasoning_effort: str | None = None
    response_format: ResponseFormat | None = None
    fallbacks: list[str] = field(default_factory=list)
    metadata: dict[str, str] = field(default_factory=dict)
    parent_id: str | None = None
    regenerate: str | None = None
    beside: str | None = None
    tools: list[str | ToolDefinition] = field(default_factory=list)
    recover: Recover = "restart"

    def encode(self) -> str:
        """Return it as JSON."""
        fields = asdict(self)
        fields["turns"] = [
            {"role": turn.role, "content": content.encode(turn.content), "id": turn.id}
            for turn in self.turns
        ]
        if self.system is not None:
            fields["system"] = content.encode(self.system)
        return dumps(fields)

    @classmethod
    def decode(cls, text: bytes) -> "StoredRequest":
        """Read what `encode` wrote.

        Raises:
            ValueError, KeyError, TypeError: it is not what `encode` writes.
        """
        fields = json.loads(text)
        fields["turns"] = [
            StoredTurn(**(turn | {"content": content.decode(turn["content"])}))
            for turn in fields["turns"]
        ]
        if fields.get("system") is not None:
            fields["system"] = content.decode(fields["system"])
        if fields.get("response_format") is not None:
            fields["response_format"] = ResponseFormat(**fields["response_format"])
        fields["tools"] = [
            tool if isinstance(tool, str) else ToolDefinition(**tool)
            for tool in fields.get("tools", ())
        ]
        return cls(**fields)


def read_request(text: bytes | None) -> StoredRequest:
    """Return the request that was stored as `text`.

    Raises:
        RequestUnreadable: it is gone, or another version wrote it in another form.
    """
    if text is None:
        raise RequestUnreadable("the accepted request is gone")
    try:
        return StoredRequest.decode(text)
    except (ValueError, KeyError, TypeError) as error:
        raise RequestUnreadable("the accepted request is of another version") from error


def shown_chars(request: StoredRequest) -> int:
    """How many characters a request shows its model, for where tokens have to be guessed."""
    shown = [turn.content for turn in request.turns]
    return sum(map(chars_of, shown if request.system is None else [request.system, *shown]))

"""The body of POST /api/messages: its fields and their bounds."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from rejoin.api.formats import ResponseFormatBody
from rejoin.api.parts import Content, TextContent, check_text_alone
from rejoin.api.tool_bodies import ToolList
from rejoin.shared.errors import BadRequest
from rejoin.shared.request import StoredRequest, StoredTurn
from rejoin.shared.turns import IfBusy


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


StopWord = Annotated[str, Field(min_length=1)]


class Turn(BaseModel):
    """One message of the history."""

    model_config = ConfigDict(strict=True, extra="forbid")

    role: Literal["system", "user", "assistant"]
    content: Content

    @model_validator(mode="after")
    def _files_of_the_user_alone(self) -> Self:
        if self.role != "user":
            check_text_alone(self.content, at=("content",))
        return self


class MessageBody(BaseModel):
    """What to answer, by which model, and how; `input`, `messages` or `regenerate` is needed."""

    model_config = ConfigDict(strict=True, extra="forbid")

    model: Annotated[
        str | None, Field(min_length=1, description="May be left out with REJOIN_DEFAULT_MODEL")
    ] = None
    input: Annotated[Content | None, Field(description="The user's turn")] = None
    messages: Annotated[
        list[Turn] | None, Field(min_length=1, description="The history; the last is the user's")
    ] = None
    regenerate: Annotated[
        str | None, Field(description="Instead of both: the answer to give again in another way")
    ] = None
    conversation_id: Annotated[str | None, Field(description="Go on with this one")] = None
    parent_id: Annotated[
        str | None, Field(description="After which of its messages; the newest if left out")
    ] = None
    if_busy: Annotated[
        Literal["enqueue", "interrupt", "reject"] | None,
        Field(description="If another message of the conversation is running (enqueue)"),
    ] = None
    system: TextContent | None = None
    temperature: Annotated[float | None, Field(ge=0, le=2, allow_inf_nan=False)] = None
    top_p: Annotated[float | None, Field(gt=0, le=1, allow_inf_nan=False)] = None
    max_tokens: Annotated[int | None, Field(ge=1, le=2**31 - 1)] = None
    stop: Annotated[
        list[StopWord] | None,
        Field(max_length=4),
        BeforeValidator(_as_list, json_schema_input_type=StopWord | list[StopWord] | None),
    ] = None
    reasoning_effort: Annotated[str | None, Field(pattern="^[a-z]{1,16}$")] = None
    fallbacks: Annotated[
        list[Annotated[str, Field(min_length=1)]] | None,
        Field(
            max_length=8,
            description="Models to go on with, in order, when this one cannot; left out: the"
            " operator's for the model, none: an empty list",
        ),
    ] = None
    response_format: ResponseFormatBody | None = None
    metadata: Annotated[
        dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]] | None,
        Field(max_length=16),
    ] = None
    tools: ToolList | None = None
    recover: Annotated[
        Literal["restart", "continue"] | None,
        Field(description="After a break: do the step again (restart), or go on from its text"),
    ] = None


def to_request(fields: dict[str, object], *, default_model: str | None) -> StoredRequest:
    """Check a body and return the request that it makes.

    Its model is empty where it is to be that of the message to regenerate.

    Raises:
        ValidationError: fields that are wrong each by itself.
        BadRequest: no model, not one of `input`, `messages` and `regenerate`, a last turn not the
            user's, a parent without a conversation.
    """
    body = MessageBody.model_validate(fields)
    _check_parent(body)
    model = body.model or ("" if body.regenerate is not None else default_model)
    if model is None:
        raise BadRequest("name a model, or set REJOIN_DEFAULT_MODEL", field=("model",))
    return StoredRequest(
        model=model,
        turns=_turns(body),
        system=body.system,
        temperature=body.temperature,
        top_p=body.top_p,
        max_tokens=body.max_tokens,
        stop=body.stop or [],
        reasoning_effort=body.reasoning_effort,
        response_format=None if body.response_format is None else body.response_format.stored(),
        fallbacks=body.fallbacks or [],
        metadata=body.metadata or {},
        parent_id=body.parent_id,
        regenerate=body.regenerate,
        tools=body.tools or [],
        recover=body.recover or "restart",
    )


def conversation_of(fields: dict[str, object]) -> tuple[str | None, IfBusy]:
    """The conversation that a body names, and what to do if it is busy; both checked before."""
    conversation_id, if_busy = fields.get("conversation_id"), fields.get("if_busy")
    return (
        conversation_id if isinstance(conversation_id, str) else None,
        IfBusy(if_busy) if isinstance(if_busy, str) else IfBusy.ENQUEUE,
    )


def _check_parent(body: MessageBody) -> None:
    if body.parent_id is None:
        return
    if body.regenerate is not None:
        mend = "the answer given again has the parent of the one that `regenerate` names"
        raise BadRequest(mend, field=("parent_id",))
    if body.conversation_id is None:
        raise BadRequest("send the conversation_id that it is of", field=("parent_id",))


def _turns(body: MessageBody) -> list[StoredTurn]:
    if body.regenerate is not None:
        if body.input is not None or body.messages is not None:
            mend = "send no turn with it: the answer is to the same one"
            raise BadRequest(mend, field=("regenerate",))
        return []
    if body.messages is None:
        if body.input is None:
            raise BadRequest("send the user's turn as `input`, or `messages`", field=("input",))
        return [StoredTurn("user", body.input)]
    if body.input is not None:
        raise BadRequest("send `input` or `messages`, not both", field=("messages",))
    if body.messages[-1].role != "user":
        last = len(body.messages) - 1
        raise BadRequest("the last message is to be the user's", field=("messages", last, "role"))
    return [StoredTurn(turn.role, turn.content) for turn in body.messages]

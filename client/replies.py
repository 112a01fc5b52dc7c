"""What the server's JSON replies hold; fields that this version does not know are left out."""

from pydantic import BaseModel, ConfigDict, Field, JsonValue

Json = dict[str, JsonValue]


class _Reply(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Links(_Reply):
    """A message's addresses, without the server's root."""

    message: str = Field(alias="self")
    events: str
    cancel: str


class Accepted(_Reply):
    """A message that was taken in: from now on it ends, whatever becomes of this client."""

    message_id: str
    conversation_id: str
    status: str
    links: Links


class Snapshot(_Reply):
    """The message so far (`GET /api/messages/{id}`); tail it from `last_event_id`."""

    id: str
    conversation_id: str
    model: str
    status: str
    text: str
    reasoning: str
    tool_calls: list[Json]
    usage: Json | None
    error: Json | None
    attempt: int
    attempts: list[Json]
    last_event_id: str | None
    created_at: str
    started_at: str | None
    finished_at: str | None

    @property
    def ended(self) -> bool:
        """Whether nothing follows any more."""
        return self.status in ("done", "failed", "cancelled")


class Model(_Reply):
    """One entry of the catalogue, None where nobody knows.

    `available`: the server has what its provider needs.
    """

    id: str
    provider: str
    name: str
    context_window: int | None
    max_output_tokens: int | None
    capabilities: dict[str, bool | None]
    price: dict[str, str | None] | None
    available: bool


class Models(_Reply):
    """`GET /api/models`."""

    models: list[Model]

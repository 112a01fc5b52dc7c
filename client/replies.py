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


class WaitingFor(_Reply):
    """The message of the same conversation that runs first."""

    message_id: str
    status: str


class Accepted(_Reply):
    """A message that was taken in: from now on it ends, whatever becomes of this client."""

    message_id: str
    conversation_id: str
    status: str
    links: Links
    waiting_for: WaitingFor | None = None


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
    waiting_for: WaitingFor | None = None

    @property
    def ended(self) -> bool:
        """Whether nothing follows any more."""
        return self.status in ("done", "failed", "cancelled")


class Turn(_Reply):
    """A message of a conversation. `parent_id` None: nothing is before it.

    `content` is as it was sent: a string, or parts; `text` is its words. `siblings` have the same
    parent, itself too, the oldest first: other answers to one turn, for example.
    """

    id: str
    parent_id: str | None
    role: str
    siblings: list[str] = []
    content: JsonValue = None
    model: str | None = None
    status: str | None = None
    text: str | None = None
    reasoning: str | None = None
    tool_calls: list[Json] = []
    usage: Json | None = None
    error: Json | None = None
    created_at: str | None = None


class Listed(_Reply):
    """A conversation in a list."""

    id: str
    created_at: str
    updated_at: str


class Conversation(Listed):
    """A conversation with the messages up to its newest one, in order.

    `active_message_id`: the one whose turn it is, perhaps of another branch; None: all have ended.
    """

    messages: list[Turn]
    active_message_id: str | None


class ConversationPage(_Reply):
    """Some conversations; `next_cursor` None: these are the last."""

    conversations: list[Listed]
    next_cursor: str | None = None


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

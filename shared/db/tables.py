"""The tables: conversations, their messages as a tree, the messages' tool calls.

Times are ms since the epoch, as records have them. JSON is text with escapes, so it holds any
string; the other texts hold no NUL, which PostgreSQL has not: it becomes U+FFFD on both.
"""

from decimal import Decimal
from typing import Any, Final

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Numeric,
    String,
    Table,
    Text,
)
from sqlalchemy.types import TypeDecorator, TypeEngine

ID: Final = String(36)

_NOT_IN_TEXT: Final = dict.fromkeys((0, *range(0xD800, 0xE000)), "\ufffd")
Json: Final = JSON(none_as_null=True)


class AnyText(TypeDecorator[str]):
    """Text; what no database holds, NUL and half a surrogate pair, becomes U+FFFD."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Return what can be stored."""
        return None if value is None else storable(value)


class Money(TypeDecorator[Decimal]):
    """An exact amount: NUMERIC, and text on SQLite, whose numbers are binary."""

    impl = Numeric
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[object]:
        """Choose the column's type."""
        kind: TypeEngine[Any] = String() if dialect.name == "sqlite" else Numeric()
        return dialect.type_descriptor(kind)

    def process_bind_param(self, value: Decimal | None, dialect: Dialect) -> object:
        """Return what the driver takes."""
        return f"{value:f}" if value is not None and dialect.name == "sqlite" else value

    def process_result_value(self, value: object | None, dialect: Dialect) -> Decimal | None:
        """Return the amount; None: it is unknown."""
        return None if value is None else Decimal(str(value))


def storable(text: str) -> str:
    """The text as a text column holds it."""
    try:
        return text.replace("\0", "\ufffd") if text.isascii() else _checked(text)
    except UnicodeEncodeError:
        return text.translate(_NOT_IN_TEXT)


def _checked(text: str) -> str:
    text.encode()
    return text.replace("\0", "\ufffd")


metadata: Final = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    }
)

conversations: Final = Table(
    "conversations",
    metadata,
    Column("id", ID, primary_key=True),
    Column("owner", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    Column("deleted_at", BigInteger),  # a tombstone: no late save brings it back
    Index(None, "owner", "updated_at", "id"),
    Index(None, "updated_at"),
)

# A parent may be saved after its child, so `parent_id` is no foreign key.
messages: Final = Table(
    "messages",
    metadata,
    Column("id", ID, primary_key=True),
    Column("conversation_id", ID, ForeignKey("conversations.id"), nullable=False),
    Column("parent_id", ID),
    Column("place", Integer, nullable=False),  # among those of one request
    Column("role", String(16), nullable=False),
    Column("status", String(16), nullable=False),
    Column("content", Json),  # of those that were sent; an answer has its text below
    Column("model", AnyText),
    Column("text", AnyText, nullable=False),
    Column("reasoning", AnyText, nullable=False),
    Column("finish_reason", String(32)),
    Column("error", Json),
    Column("input_tokens", BigInteger),
    Column("output_tokens", BigInteger),
    Column("reasoning_tokens", BigInteger),
    Column("cached_tokens", BigInteger),
    Column("cost_usd", Money),
    Column("estimated", Boolean),
    Column("attempts", Json, nullable=False),
    Column("steps", Json),  # an answer's finished ones; no client sees them
    Column("attempt", BigInteger, nullable=False),
    Column("sequence", BigInteger),  # with `attempt`, the log's last event; null: no end yet
    Column("request", Json),
    Column("metadata", Json),
    Column("created_at", BigInteger, nullable=False),
    Column("started_at", BigInteger),
    Column("finished_at", BigInteger),
    Index(None, "conversation_id", "created_at"),
    Index(None, "parent_id"),
)

tool_calls: Final = Table(
    "tool_calls",
    metadata,
    Column("message_id", ID, ForeignKey("messages.id", ondelete="CASCADE"), primary_key=True),
    Column("tool_call_id", AnyText, primary_key=True),
    Column("place", Integer, nullable=False),  # among the message's calls
    Column("step", Integer, nullable=False),
    Column("name", AnyText, nullable=False),
    Column("arguments", Json, nullable=False),
    Column("result", Json),
    Column("error", Json),
    Column("ended", Boolean),  # a result that is JSON's null is one; null: of an older version
)

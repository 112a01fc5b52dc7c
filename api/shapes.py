"""The JSON Schemas of what the API answers."""

from dataclasses import fields
from typing import Final

from rejoin.shared.catalogue import Capabilities
from rejoin.shared.events import FailureCode, Usage
from rejoin.shared.record import Status
from rejoin.shared.tool_events import Needs

Schema = dict[str, object]


def _object(required: Schema, optional: Schema | None = None) -> Schema:
    properties = {**required, **(optional or {})}
    return {"type": "object", "required": list(required), "properties": properties}


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def _or_null(schema: Schema) -> Schema:
    return {"oneOf": [schema, {"type": "null"}]}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


_TEXT: Final[Schema] = {"type": "string"}
_ID: Final[Schema] = {"type": "string", "format": "uuid"}
_TIME: Final[Schema] = {"type": "string", "format": "date-time"}
_COUNT: Final[Schema] = {"type": "integer", "minimum": 0}
_FLAG: Final[Schema] = {"type": "boolean"}
_EVENT_ID: Final[Schema] = {"type": "string", "pattern": "^[0-9]{1,20}-[0-9]{1,20}$"}
_STATUS: Final[Schema] = {"enum": [str(status) for status in Status]}

_USAGE: Final[dict[str, Schema]] = {
    "cost_usd": _or_null(_TEXT),
    "estimated": _FLAG,
}
_ATTEMPT: Final = _object(
    {
        "attempt": _COUNT,
        "model": _TEXT,
        "worker": _or_null(_TEXT),
        "started_at": _or_null(_TIME),
        "finished_at": _or_null(_TIME),
        "reason": _or_null(_TEXT),
        "usage": _or_null(_ref("Usage")),
    }
)
_ERROR: Final = _object(
    {
        "code": {"enum": [str(code) for code in FailureCode]},
        "message": _TEXT,
        "retryable": _FLAG,
        "status": _or_null(_COUNT),
    }
)
_MODEL: Final = _object(
    {
        "id": _TEXT,
        "provider": _TEXT,
        "name": _TEXT,
        "context_window": _or_null(_COUNT),
        "max_output_tokens": _or_null(_COUNT),
        "capabilities": _object({field.name: _or_null(_FLAG) for field in fields(Capabilities)}),
        "price": _or_null(_object({"input": _TEXT, "output": _TEXT})),
        "available": _FLAG,
        "cooling": _or_null(
            _object(
                {
                    "until": {**_TIME, "description": "It failed and is left alone until then"},
                    "reason": {"enum": [str(code) for code in FailureCode]},
                }
            )
        ),
    }
)

_CALL: Final = _object(
    {
        "tool_call_id": _TEXT,
        "step": _COUNT,
        "name": _TEXT,
        "arguments": {"type": "object"},
        "result": {},
        "error": {},
        "ended": {**_FLAG, "description": "It has a result, which may be null, or an error"},
        "needs": _or_null({"enum": [str(needs) for needs in Needs]}),
        "running": _FLAG,
    }
)
_CONVERSATION: Final[Schema] = {"id": _ID, "created_at": _TIME, "updated_at": _TIME}
_TOLD: Final[Schema] = {
    "id": _ID,
    "conversation_id": _ID,
    "model": _TEXT,
    "status": _STATUS,
    "text": _TEXT,
    "reasoning": _TEXT,
    "tool_calls": _list(_CALL),
    "usage": _or_null(_ref("Usage")),
    "error": _or_null(_ERROR),
    "attempt": {**_COUNT, "description": "0 while nothing ran"},
    "attempts": _list(_ATTEMPT),
    "last_event_id": _or_null(_EVENT_ID),
    "created_at": _TIME,
    "started_at": _or_null(_TIME),
    "finished_at": _or_null(_TIME),
}
_IN_CONVERSATION: Final[Schema] = {
    **_TOLD,
    "model": _or_null(_TEXT),
    "role": {"enum": ["system", "user", "assistant"]},
    "parent_id": _or_null(_ID),
    "siblings": {**_list(_ID), "description": "Those of the same parent, itself too, by age"},
    "content": {"oneOf": [_TEXT, _list({"type": "object"})]},
    "finish_reason": _or_null(_TEXT),
    "metadata": _or_null({"type": "object"}),
}
_WAITING_FOR: Final = _object({"message_id": _ID, "status": _STATUS})

SHAPES: Final[Schema] = {
    "Accepted": _object(
        {
            "message_id": _ID,
            "conversation_id": _ID,
            "status": {"const": "queued"},
            "links": _object({"self": _TEXT, "events": _TEXT, "cancel": _TEXT}),
        },
        {"waiting_for": _WAITING_FOR},
    ),
    "Answered": _object({"message_id": _ID, "tool_call_id": _TEXT}),
    "Cancel": {
        "type": "object",
        "properties": {"mode": {"const": "after_step"}},
        "additionalProperties": False,
    },
    "Cancelled": _object({"message_id": _ID, "status": _STATUS}),
    "Description": {"type": "object"},
    "Health": _object({"status": {"const": "ok"}}),
    "Conversation": _object(
        {
            **_CONVERSATION,
            "active_message_id": _or_null(
                {**_ID, "description": "Whose turn it is: its stream can be found again"}
            ),
            "messages": _list(_ref("ConversationMessage")),
        }
    ),
    "ConversationMessage": _object(_IN_CONVERSATION),
    "Conversations": _object(
        {"conversations": _list(_object(_CONVERSATION)), "next_cursor": _or_null(_TEXT)}
    ),
    "Message": _object(
        {
            **_TOLD,
            "waiting_for": _or_null(_WAITING_FOR),
            "position": _or_null({**_COUNT, "description": "While queued: 0 is the next to run"}),
        }
    ),
    "Models": _object({"models": _list(_MODEL)}),
    "Page": _object(
        {
            "events": _list(
                _object({"id": _or_null(_EVENT_ID), "event": _TEXT, "data": {"type": "object"}})
            ),
            "next": _or_null(_EVENT_ID),
            "ended": _FLAG,
        }
    ),
    "Problem": _object(
        {"type": _TEXT, "title": _TEXT, "status": _COUNT, "detail": _TEXT},
        {
            "errors": _list(_object({"loc": _list({"type": ["string", "integer"]}), "msg": _TEXT})),
            "active_message_id": {**_ID, "description": "409: what the conversation is busy with"},
        },
    ),
    "ToolAnswer": {
        "oneOf": [
            _object({"approve": _FLAG}),
            _object({"result": {}}),
            _object({"error": {**_TEXT, "minLength": 1}}),
        ]
    },
    "Usage": _object({field.name: _USAGE.get(field.name, _COUNT) for field in fields(Usage)}),
}

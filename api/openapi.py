"""GET /openapi.json: the API in OpenAPI 3.1; what clients send is described by its own classes."""

from functools import cache
from importlib.metadata import version
from typing import Final, cast

from pydantic.json_schema import models_json_schema
from starlette.requests import Request
from starlette.responses import Response

from rejoin.api.answers import json_answer
from rejoin.api.schemas import MessageBody
from rejoin.api.shapes import SHAPES, Schema

_SCHEMAS: Final = "#/components/schemas/"
_ID: Final[Schema] = {
    "name": "message_id",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "format": "uuid"},
}
_DETAILS: Final = {
    "400": "Malformed: the body is not JSON, or a header or an event id is not of its form",
    "404": "No such message, tool call, conversation or model",
    "408": "The body did not arrive within a minute",
    "409": "It contradicts what is so: an ended message, a used key, another answer",
    "413": "The body is over the limit",
    "415": "The body is not JSON",
    "422": "A bad field; `errors` names it",
    "503": "The queue is full, or Redis is away, or the database where it is needed",
}
_OF_A_BODY: Final = ("400", "404", "408", "409", "413", "415", "422", "503")


async def openapi(request: Request) -> Response:
    """Return the description; below a prefix it names that as its server."""
    root = request.scope.get("root_path", "")
    return json_answer(document() | {"servers": [{"url": root}]} if root else document())


@cache
def document() -> Schema:
    """The description as an object."""
    _, sent = models_json_schema([(MessageBody, "validation")], ref_template=_SCHEMAS + "{model}")
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Rejoin",
            "version": version("rejoin"),
            "summary": "LLM answers that survive: resumable streams of chat messages",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "paths": _paths(),
        "components": {"schemas": {**cast(Schema, sent["$defs"]), **SHAPES}},
    }


def _paths() -> Schema:
    message = "/api/messages/{message_id}"
    return {
        "/api/messages": {"post": _post()},
        message: {"get": _snapshot()},
        f"{message}/events": {"get": _events()},
        f"{message}/cancel": {"post": _cancel()},
        f"{message}/tools/{{tool_call_id}}": {"post": _answer()},
        "/api/conversations": {"get": _conversations()},
        "/api/conversations/{conversation_id}": _conversation(),
        "/api/models": {"get": _get("listModels", "The models Rejoin knows", "Models")},
        "/healthz": {"get": _get("health", "Whether the process is up", "Health")},
        "/readyz": {"get": _get("readiness", "Whether Redis is there too", "Health", "503")},
        "/openapi.json": {"get": _get("describe", "This description", "Description")},
        "/": {"get": _page()},
    }


def _post() -> Schema:
    return {
        "operationId": "postMessage",
        "summary": "Accept a message and queue it; with Accept: text/event-stream its events",
        "parameters": [
            _header("Idempotency-Key", "The same key and body give the first answer again", 255),
            _header("Last-Event-ID", "With a known Idempotency-Key: where its stream goes on", 41),
        ],
        "requestBody": {"required": True, "content": _json("MessageBody")},
        "responses": {
            "202": {**_ok("Accepted"), "headers": {"Location": _text("The message's address")}},
            "200": _stream(),
            **_problems(*_OF_A_BODY),
        },
    }


def _snapshot() -> Schema:
    return {
        "operationId": "getMessage",
        "summary": "The message so far",
        "parameters": [_ID, _query("wait", "Seconds to wait for the message's end", 0, 60)],
        "responses": {"200": _ok("Message"), **_problems("404", "422", "503")},
    }


def _events() -> Schema:
    position = "The last event the client has: every later one is sent, each once"
    whole = {"schema": {"type": "integer", "minimum": 1, "maximum": 1000}}
    return {
        "operationId": "tailMessage",
        "summary": "Every event of the message, then live ones as they come",
        "parameters": [
            _ID,
            _header("Last-Event-ID", position, 41),
            {**_query("last_event_id", position), "schema": {"type": "string"}},
            {**_query("limit", "With Accept: application/json: events of a page"), **whole},
            _query("wait", "With Accept: application/json: seconds to wait for news", 0, 60),
        ],
        "responses": {
            "200": {**_stream(), "content": {**_event_stream(), **_json("Page")}},
            "204": {"description": "The log has ended, and the client has its last event"},
            **_problems("400", "404", "422", "503"),
        },
    }


def _cancel() -> Schema:
    return {
        "operationId": "cancelMessage",
        "summary": "Stop generating; the text so far stays",
        "parameters": [_ID],
        "requestBody": {"required": False, "content": _json("Cancel")},
        "responses": {
            "202": _ok("Cancelled"),
            **_problems(*_OF_A_BODY),
        },
    }


def _answer() -> Schema:
    call: Schema = {**_ID, "name": "tool_call_id", "schema": {"type": "string"}}
    return {
        "operationId": "answerToolCall",
        "summary": "Answer a tool call that waits; the message goes on with the last one",
        "parameters": [_ID, call],
        "requestBody": {"required": True, "content": _json("ToolAnswer")},
        "responses": {
            "202": _ok("Answered"),
            **_problems(*_OF_A_BODY),
        },
    }


def _conversations() -> Schema:
    limit = _query("limit", "Conversations of a page; 20 where it is left out")
    cursor = _query("cursor", "The next_cursor of the page before")
    return {
        "operationId": "listConversations",
        "summary": "The caller's conversations, the last changed first",
        "parameters": [
            {**limit, "schema": {"type": "integer", "minimum": 1, "maximum": 100}},
            {**cursor, "schema": {"type": "string"}},
        ],
        "responses": {"200": _ok("Conversations"), **_problems("422", "503")},
    }


def _conversation() -> Schema:
    named: Schema = {**_ID, "name": "conversation_id"}
    read = _get("getConversation", "The path to its newest message", "Conversation", "404", "503")
    deleted: Schema = {"description": "It is deleted, or was before"}
    delete: Schema = {
        "operationId": "deleteConversation",
        "summary": "Cancel what runs of it, and delete it with its messages, for good",
        "parameters": [named],
        "responses": {"204": deleted, **_problems("404", "503")},
    }
    return {"get": {**read, "parameters": [named]}, "delete": delete}


def _get(operation: str, summary: str, shape: str, *statuses: str) -> Schema:
    responses = {"200": _ok(shape), **_problems(*statuses)}
    return {"operationId": operation, "summary": summary, "responses": responses}


def _page() -> Schema:
    content = {"text/html": {"schema": {"type": "string"}}}
    answer = {"200": {"description": "The chat page", "content": content}}
    return {"operationId": "page", "summary": "The chat page", "responses": answer}


def _problems(*statuses: str) -> Schema:
    content = {"application/problem+json": {"schema": {"$ref": f"{_SCHEMAS}Problem"}}}
    found: Schema = {}
    for status in statuses:
        answer: Schema = {"description": _DETAILS[status], "content": content}
        if status == "503":
            seconds = {"description": "Seconds", "schema": {"type": "integer"}}
            answer["headers"] = {"Retry-After": seconds}
        found[status] = answer
    return found


def _ok(shape: str) -> Schema:
    return {"description": shape, "content": _json(shape)}


def _json(shape: str) -> Schema:
    return {"application/json": {"schema": {"$ref": f"{_SCHEMAS}{shape}"}}}


def _stream() -> Schema:
    return {"description": "The events, as server-sent events", "content": _event_stream()}


def _event_stream() -> Schema:
    return {"text/event-stream": {"schema": {"type": "string"}}}


def _text(description: str) -> Schema:
    return {"description": description, "schema": {"type": "string"}}


def _header(name: str, description: str, longest: int) -> Schema:
    schema = {"type": "string", "maxLength": longest}
    return {"name": name, "in": "header", "description": description, "schema": schema}


def _query(name: str, description: str, least: int = 0, most: int = 0) -> Schema:
    schema = {"type": "number", "minimum": least, "maximum": most}
    return {"name": name, "in": "query", "description": description, "schema": schema}

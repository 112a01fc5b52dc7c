"""The description of the API: valid, whole, and true of what is answered."""

from typing import Any

import httpx
import jsonschema
import pytest
from openapi_spec_validator import validate
from starlette.routing import Route

from rejoin.api import app as app_module
from rejoin.api.app import Application
from rejoin.api.context import Context
from rejoin.api.endpoints.events import EVENTS_PATH
from rejoin.api.openapi import document


def against(shape: str, answer: object) -> None:
    schema = {"$ref": f"#/components/schemas/{shape}", "components": document()["components"]}
    jsonschema.Draft202012Validator(schema).validate(answer)


@pytest.fixture
async def client(context: Context) -> Any:
    transport = httpx.ASGITransport(Application(context))
    async with httpx.AsyncClient(transport=transport, base_url="http://api") as made:
        yield made


def test_it_is_valid() -> None:
    validate(document())


def test_it_names_every_route_and_no_other(context: Context) -> None:
    described: dict[str, Any] = document()["paths"]  # type: ignore[assignment]
    routes = [r for r in app_module._routes(context) if isinstance(r, Route)]
    served = {(route.path, method) for route in routes for method in route.methods or ()}
    served = {(path, method.lower()) for path, method in served if method != "HEAD"}
    events = {path for path in described if EVENTS_PATH.fullmatch(path)}
    assert len(events) == 1
    served |= {(path, "get") for path in events}
    assert {(path, method) for path, methods in described.items() for method in methods} == served


def test_whatever_takes_a_body_may_say_that_it_did_not_arrive() -> None:
    described: dict[str, Any] = document()["paths"]  # type: ignore[assignment]
    of_a_body = [
        one for path in described.values() for one in path.values() if "requestBody" in one
    ]
    assert len(of_a_body) == 3
    assert all("408" in operation["responses"] for operation in of_a_body)


async def test_answers_are_as_described(client: httpx.AsyncClient) -> None:
    body = {"model": "demo/echo", "input": "hi"}
    accepted = await client.post("/api/messages", json=body)
    against("Accepted", accepted.json())
    links = accepted.json()["links"]
    against("Message", (await client.get(links["self"])).json())
    pages = {"accept": "application/json"}
    against("Page", (await client.get(links["events"], headers=pages)).json())
    against("Cancelled", (await client.post(links["cancel"])).json())
    cancelled = (await client.get(links["self"])).json()
    assert cancelled["attempts"]
    against("Message", cancelled)
    page = await client.get(links["events"], headers=pages)
    assert page.json()["events"]
    against("Page", page.json())
    conversations = await client.get("/api/conversations")
    against("Conversations", conversations.json())
    (listed,) = conversations.json()["conversations"]
    conversation = await client.get(f"/api/conversations/{listed['id']}")
    assert [message["role"] for message in conversation.json()["messages"]] == [
        "user",
        "assistant",
    ]
    against("Conversation", conversation.json())
    against("Models", (await client.get("/api/models")).json())
    against("Health", (await client.get("/healthz")).json())
    against("Health", (await client.get("/readyz")).json())
    against("Problem", (await client.get("/nothing")).json())
    against("Problem", (await client.post("/api/messages", json={})).json())
    assert (await client.get("/openapi.json")).json() == document()


@pytest.mark.parametrize(
    "wrong",
    [
        {"tools": [5]},
        {"tools": ["no such"]},
        {"tools": [{"description": "without a name"}]},
        {"tools": [{"name": "search"}] * 129},
        {"top_p": 0},
        {"input": 1},
        {"stop": [""]},
        {"input": []},
        {"input": [{"type": "text"}]},
        {"response_format": {"type": "text"}},
    ],
)
async def test_a_body_that_breaks_the_description_is_refused(
    client: httpx.AsyncClient, wrong: dict[str, Any]
) -> None:
    body = {"model": "demo/echo", "input": "hi"}
    against("MessageBody", body)
    against("MessageBody", body | {"input": [{"type": "text", "text": "hi"}]})
    against("MessageBody", body | {"tools": ["search", {"name": "own", "parameters": {}}]})
    with pytest.raises(jsonschema.ValidationError):
        against("MessageBody", body | wrong)
    assert (await client.post("/api/messages", json=body | wrong)).status_code == 422

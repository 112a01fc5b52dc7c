"""GET /api/models: the catalogue."""

from decimal import Decimal
from typing import Any

import pytest

from tests.support.caller import Caller

FIELDS = {
    "id",
    "provider",
    "name",
    "context_window",
    "max_output_tokens",
    "capabilities",
    "price",
    "available",
}
CAPABILITIES = {"tools", "vision", "json_schema", "reasoning"}


async def catalogue(api: Caller) -> list[dict[str, Any]]:
    response = await api.http.get("/api/models")
    assert response.status_code == 200
    body = response.json()
    if isinstance(body, dict):  # the contract leaves open what the list is wrapped in
        (body,) = (value for value in body.values() if isinstance(value, list))
    models: list[dict[str, Any]] = body
    return models


async def test_each_model_has_the_contracts_fields(api: Caller) -> None:
    models = await catalogue(api)
    assert models
    for model in models:
        assert set(model) >= FIELDS
        assert model["id"] == f"{model['provider']}/{model['name']}"
        assert isinstance(model["available"], bool)
        assert model["price"] is None or set(model["price"]) == {"input", "output"}
        assert all(Decimal(amount) >= 0 for amount in (model["price"] or {}).values())
        assert set(model["capabilities"]) == CAPABILITIES
        assert set(model["capabilities"].values()) <= {True, False, None}
        for name in ("context_window", "max_output_tokens"):
            assert model[name] is None or model[name] > 0


async def test_ids_are_unique(api: Caller) -> None:
    ids = [model["id"] for model in await catalogue(api)]
    assert len(ids) == len(set(ids))


async def test_the_echo_needs_no_key(api: Caller) -> None:
    (echo,) = (model for model in await catalogue(api) if model["id"] == "demo/echo")
    assert echo["available"] is True


async def test_a_provider_without_its_key_is_not_available(api: Caller) -> None:
    """The tests' processes get no key of any provider."""
    models = [model for model in await catalogue(api) if model["provider"] == "openai"]
    assert models
    assert not any(model["available"] for model in models)


async def test_prices_are_decimal_strings_for_a_million_tokens(api: Caller) -> None:
    prices = {model["id"]: model["price"] for model in await catalogue(api)}
    assert prices["demo/echo"] == {"input": "0", "output": "0"}
    assert prices["openai/gpt-5.4"] == {"input": "2.5", "output": "15"}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("reasoning_effort", "low"),
        ("response_format", {"type": "json_schema", "json_schema": {"name": "a", "schema": {}}}),
    ],
)
async def test_a_setting_that_the_model_has_no_use_for_is_refused(
    api: Caller, field: str, value: object
) -> None:
    unable = "openai/gpt-3.5-turbo"
    body = {"model": unable, "input": "a", field: value}
    response = await api.http.post("/api/messages", json=body)
    assert response.status_code == 422
    assert response.json()["errors"][0]["loc"] == [field]
    body |= {"model": "demo/echo", "fallbacks": [unable]}
    response = await api.http.post("/api/messages", json=body)
    assert response.status_code == 422
    assert response.json()["errors"][0]["loc"] == ["fallbacks", 0]


async def test_the_echo_costs_nothing_and_its_attempt_says_so(api: Caller) -> None:
    message_id = await api.accepted("one two", model="demo/echo?rate=0")
    snapshot = (await api.http.get(f"/api/messages/{message_id}", params={"wait": "10"})).json()
    assert snapshot["status"] == "done"
    assert snapshot["usage"]["cost_usd"] == "0"
    (attempt,) = snapshot["attempts"]
    assert attempt["usage"] == snapshot["usage"]

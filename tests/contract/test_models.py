"""GET /api/models: the catalogue."""

from typing import Any

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
        assert model["price"] is None or isinstance(model["price"], dict)
        assert set(model["capabilities"]) <= CAPABILITIES


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

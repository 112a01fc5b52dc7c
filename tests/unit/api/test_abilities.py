"""Which settings a request's models are known to have no use for."""

from typing import Any

import pytest

from rejoin.api.abilities import check_abilities
from rejoin.shared import catalogue
from rejoin.shared.catalogue import Capabilities, Model
from rejoin.shared.errors import BadRequest
from rejoin.shared.request import ResponseFormat, StoredRequest, StoredTurn

ABLE, UNABLE, UNSURE = "openai/able", "openai/unable", "openai/unsure"
SCHEMA: dict[str, Any] = {"response_format": ResponseFormat("a", {"type": "object"})}
EFFORT: dict[str, Any] = {"reasoning_effort": "low"}
TOOLS: dict[str, Any] = {"tools": ["search"]}
SETTINGS = [SCHEMA, EFFORT, TOOLS]


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    def model(name: str, can: Capabilities) -> Model:
        return Model(name, "openai", name.partition("/")[2], 1, 1, can)

    models = {
        ABLE: model(ABLE, Capabilities(tools=True, json_schema=True, reasoning=True)),
        UNABLE: model(UNABLE, Capabilities(tools=False, json_schema=False, reasoning=False)),
        UNSURE: model(UNSURE, Capabilities()),
        "demo/echo": model(
            "demo/echo", Capabilities(tools=False, json_schema=False, reasoning=False)
        ),
    }
    monkeypatch.setattr(catalogue, "known", lambda: models)


def request(model: str, fallbacks: list[str] | None = None, **fields: Any) -> StoredRequest:
    return StoredRequest(model, [StoredTurn("user", "a")], fallbacks=fallbacks or [], **fields)


@pytest.mark.parametrize("model", [ABLE, UNSURE, "openai/unheard-of", "demo/echo?rate=0"])
@pytest.mark.parametrize("setting", SETTINGS)
def test_what_is_not_known_to_be_of_no_use_is_taken(model: str, setting: dict[str, Any]) -> None:
    check_abilities(request(model, **setting))


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_setting_that_the_model_has_no_use_for_is_named(setting: dict[str, Any]) -> None:
    with pytest.raises(BadRequest) as raised:
        check_abilities(request(UNABLE, **setting))
    assert raised.value.field == tuple(setting)
    assert raised.value.status == 422
    assert UNABLE in raised.value.mend


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_fallback_that_has_no_use_for_it_is_named(setting: dict[str, Any]) -> None:
    with pytest.raises(BadRequest) as raised:
        check_abilities(request(ABLE, [UNSURE, UNABLE], **setting))
    assert raised.value.field == ("fallbacks", 1)


def test_a_model_that_asks_nothing_of_it_is_asked_nothing() -> None:
    check_abilities(request(UNABLE))
    check_abilities(request(UNABLE, reasoning_effort="none"))


@pytest.mark.parametrize("name", ["claude-haiku-4-5", "claude-opus-5-5", "claude-sonnet-5-5"])
def test_anthropics_models_fit_a_schema_by_a_forced_tool_if_need_be(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    check_abilities(request(f"anthropic/{name}", **SCHEMA))


def test_our_own_file_knows_a_model_without_reasoning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    with pytest.raises(BadRequest):
        check_abilities(request("openai/gpt-4o-mini", **EFFORT))

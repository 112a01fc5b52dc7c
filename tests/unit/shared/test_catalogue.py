"""The models, the providers, and the names that are refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoin.shared import catalogue
from rejoin.shared.catalogue import Capabilities
from rejoin.shared.errors import BadRequest, NotFound


def test_our_own_file_names_models_of_providers_there_are_and_what_it_knows_of_them() -> None:
    providers = {state.name for state in catalogue.providers({})}
    models = catalogue.known()
    assert len(models) >= 5
    for name, model in models.items():
        assert name == model.id == f"{model.provider}/{model.name}"
        assert model.provider in providers
        assert model.context_window is None or model.context_window >= 4096
        catalogue.check_model(name)


def test_a_model_is_found_whatever_its_parameters() -> None:
    found = catalogue.find("demo/echo?rate=0")
    assert found is not None
    assert found.id == "demo/echo"
    assert catalogue.find("openai/nothing-like-it") is None


def test_abilities_are_named_or_lacking_or_unknown() -> None:
    assert Capabilities.of(None) == Capabilities(None, None, None, None)
    assert Capabilities.of(["tools", "telepathy"]) == Capabilities(
        tools=True, vision=False, json_schema=False, reasoning=False
    )


@pytest.mark.parametrize(
    ("environ", "available"),
    [
        ({}, False),
        ({"OPENAI_API_KEY": "", "OPENAI_BASE_URL": " "}, False),
        ({"OPENAI_API_KEY": "sk-x"}, True),
        ({"OPENAI_BASE_URL": "http://127.0.0.1:11434/v1"}, True),
    ],
)
def test_openai_is_available_with_a_key_or_a_server(
    environ: dict[str, str], available: bool
) -> None:
    states = {state.name: state.configured for state in catalogue.providers(environ)}
    assert (states["demo"], states["openai"]) == (True, available)


def test_every_provider_says_how_it_is_configured() -> None:
    hints = {state.name: state.hint for state in catalogue.providers({})}
    assert "no key" in hints["demo"]
    assert "OPENAI_API_KEY" in hints["openai"]
    assert "ANTHROPIC_API_KEY" in hints["anthropic"]
    assert "OPENROUTER_API_KEY" in hints["openrouter"]
    assert "OLLAMA_HOST" in hints["ollama"]


@pytest.mark.parametrize(
    ("environ", "available"),
    [
        ({}, (False, False)),
        ({"OPENAI_API_KEY": "sk-x", "OPENROUTER_API_KEY": " "}, (False, False)),
        ({"OPENROUTER_API_KEY": "sk-or-x"}, (True, False)),
        ({"OPENROUTER_BASE_URL": "http://127.0.0.1:9/v1"}, (True, False)),
        ({"OLLAMA_HOST": "127.0.0.1:11434"}, (False, True)),
    ],
)
def test_openrouter_and_ollama_are_available_by_what_each_needs(
    environ: dict[str, str], available: tuple[bool, bool]
) -> None:
    states = {state.name: state.configured for state in catalogue.providers(environ)}
    assert (states["openrouter"], states["ollama"]) == available


@pytest.mark.parametrize("model", ["openrouter/a/b:free", "ollama/llama3.2:1b", "ollama/hf.co/a/b"])
def test_models_of_openrouter_and_ollama_are_taken_by_any_name(model: str) -> None:
    catalogue.check_model(model)


@pytest.mark.parametrize(
    ("environ", "available"),
    [
        ({"OPENAI_API_KEY": "sk-x"}, False),
        ({"ANTHROPIC_API_KEY": " "}, False),
        ({"ANTHROPIC_API_KEY": "sk-x"}, True),
        ({"ANTHROPIC_BASE_URL": "http://127.0.0.1:4000"}, True),
    ],
)
def test_anthropic_is_available_with_a_key_or_a_server(
    environ: dict[str, str], available: bool
) -> None:
    states = {state.name: state.configured for state in catalogue.providers(environ)}
    assert states["anthropic"] is available


@pytest.mark.parametrize(
    "model",
    [
        "demo/echo",
        "demo/echo?rate=0",
        "openai/gpt-5-mini",
        "anthropic/claude-sonnet-4-5",
        "openai/meta-llama/llama-3.3-70b-instruct:free",
        "openai/" + "x" * 249,
        "agent/my-agent_2.0",
    ],
)
def test_a_usable_name_is_taken(model: str) -> None:
    catalogue.check_model(model)


@pytest.mark.parametrize(
    "model",
    ["", "openai/" + "x" * 250, "openai/a b", "openai/a\nb", "openai/a\x00", "openai/\ud83d"],
)
def test_what_is_no_name_is_a_bad_request(model: str) -> None:
    with pytest.raises(BadRequest) as caught:
        catalogue.check_model(model)
    assert (caught.value.field, caught.value.status) == (("model",), 422)


@pytest.mark.parametrize(
    "model",
    [
        "gpt-5-mini",
        "nobody/x",
        "openai/",
        "/x",
        "demo/parrot",
        "demo/",
        "Demo/echo",
        "agent/",
        "agent/ä",
        "agent/a/b",
    ],
)
def test_an_unknown_model_is_not_found(model: str) -> None:
    with pytest.raises(NotFound):
        catalogue.check_model(model)


@pytest.mark.parametrize(
    ("name", "rate"),
    [
        ("echo", 20.0),
        ("echo?", 20.0),
        ("echo?rate=50", 50.0),
        ("echo?rate=0", 0.0),
        ("echo?rate=0.5", 0.5),
        ("echo?rate=999999", 999999.0),
    ],
)
def test_the_demos_rate_is_a_plain_number(name: str, rate: float) -> None:
    assert catalogue.parse_demo_rate(name) == rate


@pytest.mark.parametrize(
    "query",
    [
        "rate=abc",
        "rate=",
        "rate",
        "rate=-1",
        "rate=nan",
        "rate=inf",
        "rate=1e3",
        "rate=1_0",
        "rate=+5",
        "rate=\u0665",
        "rate=1000000",
        "rate=1&rate=2",
        "rate=1&x=2",
        "speed=1",
        "rate=1;x=2",
        "50",
    ],
)
def test_any_other_parameter_of_the_demo_is_a_bad_request(query: str) -> None:
    with pytest.raises(BadRequest) as caught:
        catalogue.check_model(f"demo/echo?{query}")
    assert caught.value.field == ("model",)


@given(st.text(max_size=300))
def test_any_text_is_taken_or_refused_and_nothing_else(text: str) -> None:
    for model in (text, f"demo/{text}", f"demo/echo?{text}", f"openai/{text}"):
        try:
            catalogue.check_model(model)
        except (BadRequest, NotFound):
            continue
        assert model.startswith(("demo/echo", "openai/"))

"""Which provider serves a model, and how often it is opened."""

from collections.abc import Callable
from functools import partial

import pytest

from rejoin.shared import catalogue
from rejoin.shared.errors import ProviderError
from rejoin.shared.events import FailureCode
from rejoin.shared.providers import REGISTRY, Entry
from rejoin.worker.providers.anthropic import AnthropicProvider
from rejoin.worker.providers.base import Provider
from rejoin.worker.providers.demo import DemoProvider
from rejoin.worker.providers.ollama import OllamaProvider
from rejoin.worker.providers.openai import OpenAIProvider
from rejoin.worker.providers.openrouter import OpenRouterProvider
from rejoin.worker.providers.registry import FACTORIES, Providers

# The registry finds them by their names: here their types are checked.
ADAPTERS: dict[str, Callable[[], Provider]] = {
    "demo": DemoProvider,
    "openai": OpenAIProvider,
    "anthropic": AnthropicProvider,
    "openrouter": OpenRouterProvider,
    "ollama": OllamaProvider,
}


class Closing(DemoProvider):
    """Counts how often it is closed, and may fail at it."""

    def __init__(self, *, fails: bool = False) -> None:
        self.closed = 0
        self._fails = fails

    async def aclose(self) -> None:
        self.closed += 1
        if self._fails:
            raise OSError("would not close")


def test_the_catalogue_names_the_same_providers() -> None:
    assert {state.name for state in catalogue.providers()} == set(FACTORIES)


@pytest.mark.parametrize("entry", REGISTRY, ids=[entry.name for entry in REGISTRY])
async def test_each_entry_names_its_adapter(entry: Entry, monkeypatch: pytest.MonkeyPatch) -> None:
    for other in REGISTRY:
        for variable in other.variables:
            monkeypatch.delenv(variable, raising=False)
    for variable in entry.variables[:1]:
        monkeypatch.setenv(variable, "a-key-or-a-host")
    opened = FACTORIES[entry.name]()
    assert type(opened) is ADAPTERS[entry.name]
    await opened.aclose()


async def test_a_provider_is_opened_once_and_gets_the_rest_of_the_name() -> None:
    providers = Providers()
    first, name = providers.find("demo/echo?rate=50")
    assert isinstance(first, DemoProvider)
    assert name == "echo?rate=50"
    assert providers.find("demo/a/b") == (first, "a/b")
    await providers.aclose()


@pytest.mark.parametrize("model", ["nobody/x", "demo", "demo/", "", "/x"])
def test_an_unknown_provider_is_an_invalid_request(model: str) -> None:
    with pytest.raises(ProviderError) as caught:
        Providers().find(model)
    assert (caught.value.code, caught.value.retryable) == (FailureCode.INVALID_REQUEST, False)


def test_a_provider_without_its_settings_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(ProviderError, match="OPENAI_API_KEY") as caught:
        Providers().find("openai/gpt-5-mini")
    assert caught.value.code == FailureCode.AUTHENTICATION


async def test_claude_is_found_once_its_key_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    monkeypatch.delenv("ANTHROPIC_BASE_URL", raising=False)
    providers = Providers()
    with pytest.raises(ProviderError, match="ANTHROPIC_API_KEY"):
        providers.find("anthropic/claude-haiku-5-5")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-test-0123456789")
    found, name = providers.find("anthropic/claude-haiku-5-5")
    assert isinstance(found, AnthropicProvider)
    assert name == "claude-haiku-5-5"
    await providers.aclose()


async def test_all_are_closed_though_one_fails_to() -> None:
    made = {"a": Closing(), "b": Closing(fails=True), "c": Closing()}
    providers = Providers({name: partial(made.__getitem__, name) for name in made})
    for name in made:
        providers.find(f"{name}/x")
    with pytest.raises(OSError, match="would not"):
        await providers.aclose()
    assert [provider.closed for provider in made.values()] == [1, 1, 1]


async def test_what_is_configured_can_be_opened_at_the_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test-0123456789")
    opened: list[str] = []

    def opening(name: str) -> Closing:
        opened.append(name)
        return Closing()

    providers = Providers({name: partial(opening, name) for name in FACTORIES})
    providers.open_configured()
    providers.find("openai/x")
    assert opened == ["demo", "openai"]
    await providers.aclose()


def test_settings_that_cannot_work_do_not_stop_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "nowhere")
    providers = Providers()
    providers.open_configured()
    with pytest.raises(ProviderError, match="OPENAI_BASE_URL"):
        providers.find("openai/x")

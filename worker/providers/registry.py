"""Finds a model's provider; each is opened when first asked for, once in a process."""

from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack, suppress
from importlib import import_module
from typing import Final, cast

from rejoin.shared import catalogue
from rejoin.shared.errors import ProviderError
from rejoin.shared.events import FailureCode
from rejoin.shared.providers import REGISTRY
from rejoin.worker.providers.base import Provider


def factory(adapter: str) -> Callable[[], Provider]:
    """Return what opens an adapter, `module:Class`."""
    module, _, name = adapter.partition(":")

    def opened() -> Provider:
        # An SDK is imported with its provider: openai's alone takes 0.35 s and 30 MB.
        found = getattr(import_module(f"rejoin.worker.providers.{module}"), name)
        return cast(Provider, found())

    return opened


FACTORIES: Final[Mapping[str, Callable[[], Provider]]] = {
    entry.name: factory(entry.adapter) for entry in REGISTRY
}


class Providers:
    """The providers of one worker process; `aclose` when it ends."""

    def __init__(self, factories: Mapping[str, Callable[[], Provider]] = FACTORIES) -> None:
        self._factories = factories
        self._open: dict[str, Provider] = {}

    def find(self, model: str) -> tuple[Provider, str]:
        """Return the provider of `provider/name`, and the name.

        Raises:
            ProviderError: `invalid_request` for an unknown provider, `authentication` for one
                that is not configured.
        """
        prefix, _, name = model.partition("/")
        if prefix not in self._factories or not name:
            raise ProviderError(
                f"no provider has the model {model}",
                code=FailureCode.INVALID_REQUEST,
                retryable=False,
            )
        return self._opened(prefix), name

    def of(self, name: str) -> Provider:
        """Return a provider by its name.

        Raises:
            KeyError: there is none of that name.
            ProviderError: `authentication`, it is not configured.
        """
        return self._opened(name)

    def open_configured(self) -> None:
        """Open what is configured, so that no message waits for an SDK's import.

        One that refuses its settings stays closed: its messages will fail and say why.
        """
        for state in catalogue.providers():
            if state.configured:
                with suppress(ProviderError):
                    self._opened(state.name)

    async def aclose(self) -> None:
        """Close all of them, each even if another fails to."""
        async with AsyncExitStack() as stack:
            for provider in self._open.values():
                stack.push_async_callback(provider.aclose)
            self._open.clear()

    def _opened(self, name: str) -> Provider:
        if name not in self._open:
            self._open[name] = self._factories[name]()
        return self._open[name]

"""The agents that a worker process has, by their names."""

from collections.abc import Iterable

from rejoin.shared.errors import SettingsError
from rejoin.worker.agents.declared import Agent


class Agents:
    """The agents of one worker process.

    Raises:
        SettingsError: two of them have one name.
    """

    def __init__(self, agents: Iterable[Agent] = ()) -> None:
        self._agents: dict[str, Agent] = {}
        for agent in agents:
            if self._agents.setdefault(agent.model, agent) != agent:
                raise SettingsError(f"REJOIN_AGENTS has two agents of the name {agent.name}")

    def find(self, model: str) -> Agent | None:
        """Return the agent of `agent/NAME`, or None."""
        return self._agents.get(model)

    def names(self) -> list[str]:
        """The names of all of them, without `agent/`."""
        return sorted(agent.name for agent in self._agents.values())

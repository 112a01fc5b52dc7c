"""The agents that a worker process has, by their names."""

from collections.abc import Iterable

from rejoin.worker.agents.declared import Agent


class Agents:
    """The agents of one worker process."""

    def __init__(self, agents: Iterable[Agent] = ()) -> None:
        self._agents = {agent.model: agent for agent in agents}

    def add(self, agent: Agent) -> None:
        """Register an agent; a later one of the same name replaces it."""
        self._agents[agent.model] = agent

    def find(self, model: str) -> Agent | None:
        """Return the agent of `agent/NAME`, or None."""
        return self._agents.get(model)

    def names(self) -> list[str]:
        """The names of all of them, without `agent/`."""
        return sorted(agent.name for agent in self._agents.values())

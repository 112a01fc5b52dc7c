"""Loads the agents that `REJOIN_AGENTS` names: those of each file or module."""

from collections.abc import Sequence
from typing import Final

from rejoin.shared.errors import SettingsError
from rejoin.worker.agents.declared import Agent
from rejoin.worker.user_code import load_module

SETTING: Final = "REJOIN_AGENTS"


def load_agents(entries: Sequence[str]) -> list[Agent]:
    """Import each file or module and return the agents at its top, those it imported too.

    Raises:
        SettingsError: an entry cannot be imported or has no agent, or two agents have one name.
    """
    found: dict[str, tuple[Agent, str]] = {}
    for entry in entries:
        module = load_module(entry, setting=SETTING)
        agents = [value for value in vars(module).values() if isinstance(value, Agent)]
        if not agents:
            raise SettingsError(
                f"{SETTING}: {entry} has no agent: decorate an async generator function at its top"
                " with rejoin.worker.agents.agent"
            )
        for agent in agents:
            other, of = found.setdefault(agent.name, (agent, entry))
            if other != agent:
                raise SettingsError(
                    f"{SETTING}: two agents are called {agent.name}, {_place(other)} (of {of}) and"
                    f" {_place(agent)} (of {entry}): give one another name, @agent(name=...)"
                )
    return [agent for agent, _ in found.values()]


def _place(agent: Agent) -> str:
    code = agent.function.__code__
    return f"{code.co_filename}:{code.co_firstlineno}"

"""Loads the agents that `REJOIN_AGENTS` names: those of each file or module."""

from collections.abc import Sequence
from typing import Final

from rejoin.worker.agents.declared import Agent
from rejoin.worker.declared import load_declared

SETTING: Final = "REJOIN_AGENTS"


def load_agents(entries: Sequence[str]) -> list[Agent]:
    """Import each file or module and return the agents at its top, those it imported too.

    Raises:
        SettingsError: an entry cannot be imported or has no agent, or two agents have one name.
    """
    mend = "decorate an async generator function at its top with rejoin.worker.agents.agent"
    return load_declared(entries, Agent, setting=SETTING, noun="agent", mend=mend)

"""A tool for REJOIN_TOOLS that costs nothing: what a call of it takes is Rejoin's."""

from rejoin.worker.tools import tool


@tool
async def trivial() -> str:
    """Do nothing."""
    return "nothing"

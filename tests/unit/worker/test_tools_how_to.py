"""The tool of docs/how-to/tools.md, as it stands there."""

import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import cast

HOW_TO = Path(__file__).parents[3] / "docs" / "how-to" / "tools.md"


async def reserve(train: str, seats: int, where: str, *, key: str) -> SimpleNamespace:
    assert (train, seats, where) == ("ICE 73", 1, "window")
    assert key == "message:1:call_1"
    return SimpleNamespace(full=False, number="A1")


async def test_the_how_tos_tool_and_its_test_run() -> None:
    blocks = re.findall(r"```python\n(.*?)```", HOW_TO.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 2
    names: dict[str, object] = {"reserve": reserve}
    for block in blocks:
        exec(block, names)
    told = cast(Callable[[], Awaitable[None]], names["test_a_booking_is_for_a_window_seat"])
    await told()

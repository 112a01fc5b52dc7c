"""Calls as a model asks for them: what their arguments may be."""

import pytest

from rejoin.worker.called import CallNames
from rejoin.worker.providers.base import ToolCall, ToolCallChunk


def nested(levels: int) -> dict[str, object]:
    arguments: dict[str, object] = {}
    for _ in range(levels - 1):
        arguments = {"a": arguments}
    return arguments


@pytest.mark.parametrize(("levels", "fits"), [(1, True), (500, True), (501, False), (900, False)])
def test_arguments_are_kept_as_deep_as_a_later_request_can_hold_them(
    levels: int, fits: bool
) -> None:
    call = CallNames().take(ToolCallChunk(ToolCall("c", "t", nested(levels))), 1)
    assert call.arguments == (nested(levels) if fits else {})
    assert (call.unfit is None) == fits


def test_lists_are_levels_too() -> None:
    deep: list[object] = []
    for _ in range(600):
        deep = [deep, 1]
    call = CallNames().take(ToolCallChunk(ToolCall("c", "t", {"a": deep})), 1)
    assert call.unfit is not None
    assert "nested deeper than 500 levels" in call.unfit

"""What an agent's log tells of its use: that of its model calls, and nothing for its own words."""

from dataclasses import asdict

from rejoin.shared.events import Fields, Usage
from rejoin.shared.fold import Message
from rejoin.shared.ids import EventId
from rejoin.shared.spent import guessed, spent_of

USED = asdict(Usage(10, 2))
SHOWN: Fields = {"shown_chars": 40}


def message(*events: tuple[str, Fields, Fields | None], model: str = "agent/mine") -> Message:
    """A log of one attempt, whose worker was lost after these events."""
    made = Message()
    made.add(EventId(1, 0), "start", {"model": model, "attempt": 1}, {})
    for sequence, (name, fields, private) in enumerate(events, 1):
        made.add(EventId(1, sequence), name, fields, private)
    return made


def text(words: str, private: Fields | None = None) -> tuple[str, Fields, Fields | None]:
    return "text", {"text": words}, private


def called(**private: object) -> tuple[str, Fields, Fields | None]:
    fields: Fields = {"tool_call_id": "a", "name": "look", "arguments": {"at": "x" * 400}}
    return "tool_call", fields, {"agent": "asked", **private}


def test_its_own_words_cost_nothing_and_those_of_a_model_do() -> None:
    made = message(text("x" * 400))
    assert spent_of(made, None) is None
    assert guessed(made, made.spending.all_calls) == set()
    assert spent_of(message(text("x" * 400), model="openai/x"), None) is not None


def test_a_model_call_that_broke_off_is_counted_from_its_own_words_alone() -> None:
    spent = spent_of(message(text("x" * 400), text("x" * 8, SHOWN), called(), text("xxxx")), None)
    assert spent is not None
    assert (spent.input_tokens, spent.output_tokens, spent.estimated) == (10, 3, True)


def test_a_retry_of_another_call_breaks_no_text_off() -> None:
    again: tuple[str, Fields, None] = ("retry", {"reason": "rate_limited", "in_seconds": 1.0}, None)
    spent = spent_of(message(text("x" * 6, SHOWN), again, text("x" * 6)), None)
    assert spent is not None
    assert (spent.input_tokens, spent.output_tokens) == (10, 3)


def test_what_ended_calls_used_is_told_with_any_later_event() -> None:
    tellers: list[tuple[str, Fields, Fields | None]] = [
        text("so", {"usage": USED}),
        ("data", {"name": "x", "value": 1, "tool_call_id": None}, {"usage": USED}),
        ("tool_result", {"tool_call_id": "a", "name": "look", "result": 1}, {"usage": USED}),
        called(used=USED),
        ("step", {"step": 1, "finish_reason": "tool_calls"}, {"usage": USED}),
    ]
    for told in tellers:
        spent = spent_of(message(text("x" * 400, SHOWN), told, text("more")), None)
        assert spent == Usage(10, 2), told[0]

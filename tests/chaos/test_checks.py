"""The chaos test's own checks: the plan repeats, and a log or tail that is wrong is found."""

import pytest

from rejoin.shared import keys
from tests.chaos.checks import parse_log, wrong_log, wrong_reasoning, wrong_tail
from tests.chaos.cluster import Doors
from tests.chaos.lasting import lasting
from tests.chaos.plan import Kind, MessagePlan, Reader, TailPlan, make_plan
from tests.chaos.senders import Message
from tests.chaos.tails import Tail
from tests.chaos.tally import Tally
from tests.support.redis_server import RedisServer

LOG = [
    ("1-0", "start", '{"attempt":1}'),
    ("1-1", "text", '{"text":"one "}'),
    ("2-0", "reset", '{"after":null,"attempt":2,"model":"m","reason":"takeover"}'),
    ("2-1", "text", '{"text":"one "}'),
    ("2-2", "text", '{"text":"two"}'),
    ("2-3", "step", '{"step":1,"finish_reason":"stop"}'),
    ("2-4", "usage", '{"input_tokens":1}'),
    ("2-5", "done", '{"finish_reason":"stop","text_chars":7}'),
]
CANCELLED = '{"finish_reason":"cancelled","text_chars":7}'


def raws(log: list[tuple[str, str, str]]) -> list[bytes]:
    return [f"event: {name}\ndata: {data}\nid: {at}\n\n".encode() for at, name, data in log]


def a_message(*, text: str = "one two", fails_with: str | None = None) -> Message:
    return Message(MessagePlan(1, 0, "demo/echo", text, text, "", fails_with, None, False, ()))


def a_tail(message: Message, has: list[bytes], began_after: str | None = None) -> Tail:
    plan = TailPlan(0, Reader.STREAM, by_proxy=False, slow=False, after=0)
    tail = Tail(message, plan, Doors((), ()), None, Tally(), "1")  # type: ignore[arg-type]
    tail.raws, tail.began_after = has, began_after
    return tail


def test_the_same_seed_gives_the_same_plan() -> None:
    assert make_plan(7, 60) == make_plan(7, 60)
    assert make_plan(7, 60) != make_plan(8, 60)


def test_in_ten_minutes_every_kind_of_fault_is_planned() -> None:
    assert {fault.kind for fault in make_plan(7, 600).faults} == set(Kind)


def test_a_right_log_is_right() -> None:
    assert [*wrong_log(a_message(), parse_log(raws(LOG)))] == []
    assert [*wrong_reasoning(a_message(), parse_log(raws(LOG)))] == []


@pytest.mark.parametrize("gone", [0, 2, 3, 4, 6, 7])
def test_a_log_that_lacks_an_event_is_wrong(gone: int) -> None:
    log = LOG[:gone] + LOG[gone + 1 :]
    assert [*wrong_log(a_message(), parse_log(raws(log)))] != []


def test_a_log_that_goes_on_after_its_end_is_wrong() -> None:
    log = [*LOG, ("2-6", "text", '{"text":"!"}')]
    assert [*wrong_log(a_message(), parse_log(raws(log)))] != []


def test_an_end_that_the_plan_does_not_explain_is_wrong() -> None:
    failed = [*LOG[:-1], ("2-5", "failed", '{"code":"internal"}')]
    for log, message in [
        (LOG, a_message(fails_with="authentication")),
        (failed, a_message()),
        (failed, a_message(fails_with="authentication")),
        ([*LOG[:-1], ("2-5", "done", CANCELLED)], a_message()),
    ]:
        assert [*wrong_log(message, parse_log(raws(log)))] != []


def test_a_cancel_that_was_taken_must_end_the_message() -> None:
    message = a_message()
    message.cancel_status = 202
    assert [*wrong_log(message, parse_log(raws(LOG)))] != []
    cancelled = [*LOG[:-1], ("2-5", "done", CANCELLED)]
    assert [*wrong_log(message, parse_log(raws(cancelled)))] == []


def test_text_that_the_provider_did_not_send_is_wrong() -> None:
    for text in ("one two three", "one", "one tvo"):
        assert [*wrong_log(a_message(text=text), parse_log(raws(LOG)))] != []


def test_a_tail_is_held_to_the_log_from_where_it_began() -> None:
    message, log = a_message(), raws(LOG)
    frames = parse_log(log)
    assert [*wrong_tail(a_tail(message, log), frames)] == []
    assert [*wrong_tail(a_tail(message, log[3:], "2-0"), frames)] == []
    swapped, doubled = [*log[:2], log[3], log[2], *log[4:]], [*log[:2], *log[1:]]
    for has in (log[1:], log[:-1], swapped, doubled):
        (problem,) = wrong_tail(a_tail(message, has), frames)
        assert "they part at" in problem
    assert [*wrong_tail(a_tail(message, log, "9-9"), frames)] != []


def test_a_key_without_an_expiry_is_found_unless_it_is_an_index(own_redis: RedisServer) -> None:
    with own_redis.client() as client:
        client.set("rejoin:expires", "1", px=60_000)
        client.zadd(keys.QUEUE, {"a": 1})
        client.mset({f"rejoin:for ever {n}": "1" for n in range(3)})
        assert lasting(client) == {f"rejoin:for ever {n}" for n in range(3)}

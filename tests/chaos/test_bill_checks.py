"""The chaos run's check of bills finds an attempt left out and one counted twice, and no other."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest

from tests.chaos.bill_checks import Bills, Kind, wrong_bills
from tests.chaos.ledger import Entry, Ledger, read_ledger
from tests.chaos.plan import MessagePlan
from tests.chaos.senders import Message
from tests.chaos.tally import Tally
from tests.support.provider_script import Answer, Hold, Request, choice, completion_chunk, sse
from tests.support.provider_server import parts_of
from tests.support.sse_reader import SseFrame

WHOLE = Entry(0, "sim", 40, 400, reported=True, whole=True, began=10.0, sent=20.0)
CUT = replace(WHOLE, reported=False, whole=False, output_chars=200, began=1.0, sent=9.0)
BOTH = [CUT, WHOLE]


def frame(event: str, **data: object) -> SseFrame:
    return SseFrame(b"", event, data, None)


def check(
    used: tuple[int, int],
    own: Sequence[Entry],
    *,
    estimated: bool = False,
    events: Sequence[SseFrame] = (),
    ended_at: float = 99.0,
    enough: int = 1,
    tally: Tally | None = None,
) -> tuple[list[str], Bills]:
    """What is wrong with one message's bill."""
    plan = MessagePlan(0, 0, "openai/sim?n=0", "hi", "", "", None, None, False, ())
    message, bills = Message(plan), Bills()
    message.id, message.created_at, message.ended_at = "m", 0.5, ended_at
    bill = frame("usage", input_tokens=used[0], output_tokens=used[1], estimated=estimated)
    logs: Mapping[str, list[SseFrame]] = {
        "m": [*events, bill, frame("done", finish_reason="stop")],
    }
    wrong = wrong_bills([message], logs, own, bills, tally or Tally(), enough=enough)
    return list(wrong), bills


TAKEN_OVER = [frame("reset", reason="takeover")]


def test_bills_that_are_right_are_called_so() -> None:
    for found, bills in (
        check((10, 100), [WHOLE]),
        check((20, 150), BOTH, estimated=True, events=TAKEN_OVER),
        check((20, 152), BOTH, estimated=True, events=TAKEN_OVER),
    ):
        assert found == []
        assert bills.kinds.total() == 1


@pytest.mark.parametrize("used", [(10, 99), (11, 100), (0, 0), (20, 200)])
def test_a_bill_whose_usage_was_sent_is_exact(used: tuple[int, int]) -> None:
    (wrong,), _ = check(used, [WHOLE])
    assert "the ledger has" in wrong


def test_a_guess_where_the_usage_was_sent_is_wrong() -> None:
    assert len(check((10, 100), [WHOLE], estimated=True)[0]) == 1


@pytest.mark.parametrize("used", [(10, 100), (30, 200), (20, 146), (20, 154)])
def test_a_guess_without_an_attempt_or_with_one_twice_is_wrong(
    used: tuple[int, int],
) -> None:
    assert check(used, BOTH, estimated=True, events=TAKEN_OVER)[0] != []


def test_a_few_guesses_make_no_sum() -> None:
    found, bills = check((10, 100), BOTH, estimated=True, events=TAKEN_OVER, enough=2)
    assert found == []
    assert bills.kinds == {Kind.GUESSED: 1}


def test_what_nobody_can_know_is_no_more_than_there_was() -> None:
    for own, tally, kind in (
        ([replace(CUT, at_once=True), WHOLE], Tally(), Kind.BURST),
        (BOTH, Tally(outages=[(5.0, 6.0)]), Kind.AWAY),
        (BOTH, Tally(outages=[(0.6, 0.7)]), Kind.AWAY),
        (BOTH, Tally(pauses=[(5.0, 60.0)]), Kind.STILL),
    ):
        for output, wrongs in ((110, 0), (150, 0), (200, 1)):
            found, bills = check(
                (20, output), own, estimated=True, events=TAKEN_OVER, ended_at=20.5, tally=tally
            )
            assert len(found) == wrongs, kind
            assert bills.kinds == {kind: 1}


def test_a_worker_that_stood_still_and_woke_in_time_has_told_what_it_used() -> None:
    tally = Tally(pauses=[(5.0, 12.0)])
    found, bills = check((10, 100), BOTH, estimated=True, events=TAKEN_OVER, tally=tally)
    assert found != []
    assert bills.kinds == {Kind.GUESSED: 1}


def test_a_worker_that_wakes_up_may_take_its_provider_for_silent() -> None:
    silent = [frame("reset", reason="provider_timeout")]
    found, bills = check(
        (20, 150), BOTH, estimated=True, events=silent, tally=Tally(pauses=[(5.0, 8.0)])
    )
    assert (found, bills.kinds) == ([], {Kind.STILL: 1})


def test_a_call_that_was_cancelled_as_it_was_made_may_be_billed_its_input() -> None:
    for output, wrongs in ((0, 0), (1, 1)):
        found, bills = check((20, output), [], estimated=True)
        assert len(found) == wrongs
        assert bills.kinds == {Kind.UNHEARD: 1}


def test_an_answer_for_no_message_is_noticed() -> None:
    assert len(check((10, 100), [WHOLE, replace(WHOLE, number=7)])[0]) == 1


async def entry_of(answer: Answer, parts: int = 99) -> Entry:
    """What the ledger has of an answer of which a client takes so many parts."""
    ledger = Ledger()
    body = b'{"model": "sim?n=3&rate=5", "messages": [{"role": "user", "content": "12345"}]}'
    sent = ledger.noting(Request("POST", "/v1/chat/completions", {}, body), answer)
    async for _ in parts_of(sent.parts):
        parts -= 1
        if not parts:
            break
    return read_ledger([vars_of(entry) for entry in ledger.entries])[0]


def vars_of(entry: Entry) -> dict[str, object]:
    return {name: getattr(entry, name) for name in Entry.__slots__}


def word(text: str) -> bytes:
    return sse(completion_chunk("sim", choices=choice({"content": text})))


END = sse(completion_chunk("sim", choices=choice({}, "stop")))
USED = sse(completion_chunk("sim", usage={"prompt_tokens": 1}))


async def test_the_ledger_bills_what_was_sent() -> None:
    whole = await entry_of(Answer([word("1234"), word("5"), END, USED]))
    assert (whole.number, whole.input, whole.output) == (3, 2, 2)
    assert (whole.reported, whole.whole, whole.failed) == (True, True, False)


async def test_an_answer_that_fails_by_itself_is_free_until_its_first_token() -> None:
    assert (await entry_of(Answer([sse("{no json")]))).input == 0
    late = await entry_of(Answer([word("1234"), sse("{no json")]))
    assert (late.input, late.output, late.reported) == (2, 1, False)


async def test_an_answer_that_its_client_leaves_costs_its_input() -> None:
    left = await entry_of(Answer([Hold(), word("1234")]), parts=1)
    assert (left.input, left.output, left.left) == (2, 0, True)


def test_a_refusal_is_in_no_ledger() -> None:
    ledger = Ledger()
    ledger.noting(Request("POST", "/", {}, b"{}"), Answer(status=429))
    assert ledger.entries == []

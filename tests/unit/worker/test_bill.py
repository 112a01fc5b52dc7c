"""A run's bill: all attempts' calls, what the log tells of them, and what others told late."""

from rejoin.shared.events import Usage
from rejoin.shared.spent import Unseen, total
from rejoin.worker.bill import Bill

ONE, OTHER, MORE = Usage(1, 10), Usage(2, 20), Usage(4, 40)
LOST = Unseen(2, "script/x", None)
GUESS = Usage(3, 0, estimated=True)  # of 12 characters


def test_a_message_that_called_nobody_has_no_bill() -> None:
    assert Bill().spent is None
    assert Bill({1: None}).spent is None
    refused = Bill()
    refused.refused()
    assert refused.spent == Usage()
    assert refused.untold is None


def test_it_is_the_sum_of_earlier_attempts_and_this_runs_calls() -> None:
    bill = Bill({1: ONE, 2: None})
    bill.add(OTHER)
    bill.add(MORE)
    assert bill.spent == Usage(7, 70)
    assert bill.untold == bill.present == Usage(6, 60)


def test_what_was_told_is_told_once_and_spent_all_the_same() -> None:
    bill = Bill({1: ONE})
    bill.add(OTHER)
    assert (bill.tell(), bill.tell(), bill.spent) == (OTHER, None, Usage(3, 30))


def test_what_a_later_attempt_of_the_run_used_is_apart() -> None:
    bill = Bill()
    bill.add(ONE)
    bill.begin()
    bill.add(OTHER)
    assert (bill.present, bill.spent) == (OTHER, Usage(3, 30))


def test_a_call_that_was_lost_unseen_was_shown_what_the_next_one_is_shown_once() -> None:
    bill = Bill({1: ONE, 2: None}, [LOST])
    assert bill.spent == ONE
    bill.shown(12)
    bill.shown(4000)
    assert bill.spent == total(ONE, GUESS)
    assert (bill.untold, bill.present) == (GUESS, None)


def test_what_another_worker_tells_late_of_its_attempt_takes_the_guesss_place() -> None:
    bill = Bill({1: ONE, 2: None}, [LOST])
    bill.shown(12)
    bill.add(MORE)
    assert bill.correct({1: OTHER, 2: ONE, 9: MORE}) == {1: OTHER, 2: ONE}
    assert bill.spent == total(total(OTHER, ONE), MORE)
    assert bill.untold == MORE


def test_a_guess_that_the_log_tells_of_stands() -> None:
    bill = Bill({1: ONE, 2: None}, [LOST])
    bill.shown(12)
    assert bill.tell() == GUESS
    assert bill.correct({2: MORE}) == {}
    assert bill.spent == total(ONE, GUESS)

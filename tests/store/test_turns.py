"""Whoever has waited longest is next."""

from __future__ import annotations

import threading

import pytest

from ridgeline.service.errors import Unavailable
from ridgeline.service.store.turns import Turns


def test_turns_come_in_the_order_in_which_they_were_asked_for() -> None:
    turns = Turns(timeout_seconds=30)
    came: list[int] = []

    def work(number: int) -> None:
        with turns.take("a"):
            came.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    with turns.take("a"):
        for number, thread in enumerate(threads):
            thread.start()
            while turns.num_waiting("a") <= number:
                pass
    for thread in threads:
        thread.join()
    assert came == list(range(8))
    assert turns.num_waiting("a") == 0


def test_one_who_has_just_asked_cannot_overtake() -> None:
    """The lock is handed over, not dropped: its last holder asks again, and comes last."""
    turns = Turns(timeout_seconds=30)
    came: list[str] = []

    def work() -> None:
        with turns.take("a"):
            came.append("the one who waited")

    thread = threading.Thread(target=work)
    with turns.take("a"):
        thread.start()
        while turns.num_waiting("a") == 0:
            pass
    with turns.take("a"):
        came.append("the last holder")
    thread.join()
    assert came == ["the one who waited", "the last holder"]


def test_other_keys_are_not_waited_for() -> None:
    turns = Turns(timeout_seconds=0)
    with turns.take("a"), turns.take("b"), turns.take(("a", 1)):
        pass


def test_nobody_waits_for_ever() -> None:
    turns = Turns(timeout_seconds=0)
    with turns.take("a"):
        with pytest.raises(Unavailable, match="too many"), turns.take("a"):
            pass
        assert turns.num_waiting("a") == 0
    with turns.take("a"):
        pass


def test_a_turn_ends_with_an_error_too() -> None:
    turns = Turns(timeout_seconds=0)
    with pytest.raises(KeyError), turns.take("a"):
        raise KeyError
    with turns.take("a"):
        pass

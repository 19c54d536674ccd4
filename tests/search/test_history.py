"""Histories: what was put in comes out, in columns."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ridgeline.search.history import History, TrialStatus
from ridgeline.search.space import Config, Space
from tests.search import strategies

SPACE = Space.model_validate(
    {
        "l2": {"type": "float", "low": 1e-6, "high": 1, "log": True, "zero": True},
        "batch_size": {"type": "values", "values": [16, 32, 64]},
        "optimizer": {"type": "values", "values": ["sgd", "adam"]},
    }
)
FIRST: Config = {"l2": 0.0, "batch_size": 32, "optimizer": "adam"}
SECOND: Config = {"l2": 1e-3, "batch_size": 64, "optimizer": "sgd"}


def _put(
    history: History,
    number: int,
    config: Config,
    *,
    state: TrialStatus = TrialStatus.RUNNING,
    value: float | None = None,
    enqueued: bool = False,
) -> None:
    history.put(number, config, enqueued=enqueued, state=state, value=value)


def test_rows_become_columns() -> None:
    history = History(SPACE)
    _put(history, 0, FIRST, enqueued=True, state=TrialStatus.WAITING)
    _put(history, 1, SECOND, state=TrialStatus.COMPLETE, value=0.25)
    assert len(history) == 2
    assert history.columns.tolist() == [[0.0, 1.0, 1.0], [1e-3, 2.0, 0.0]]
    assert history.states.tolist() == [TrialStatus.WAITING, TrialStatus.COMPLETE]
    assert np.isnan(history.values[0])
    assert history.values[1] == 0.25
    assert history.enqueued.tolist() == [True, False]
    assert str(history.columns.dtype) == str(history.values.dtype) == "float64"
    assert (str(history.states.dtype), str(history.enqueued.dtype)) == ("int8", "bool")


def test_a_trial_is_brought_up_to_date_in_place() -> None:
    history = History(SPACE)
    _put(history, 0, FIRST)
    _put(history, 1, SECOND)
    _put(history, 0, FIRST, state=TrialStatus.PRUNED, value=3.0)
    assert len(history) == 2
    assert history.states.tolist() == [TrialStatus.PRUNED, TrialStatus.RUNNING]
    assert history.values[0] == 3.0


@pytest.mark.parametrize("number", [-1, 1, 5])
def test_numbers_are_dense(number: int) -> None:
    history = History(SPACE)
    with pytest.raises(IndexError, match=str(number)):
        _put(history, number, FIRST)
    with pytest.raises(IndexError):
        history.config(number)
    assert len(history) == 0


def test_columns_are_read_only() -> None:
    history = History(SPACE)
    _put(history, 0, FIRST)
    for array in (history.columns, history.values, history.states, history.enqueued):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1


def test_a_copy_stands_still() -> None:
    history = History(SPACE)
    for number in range(16):
        _put(history, number, FIRST)
    copy = history.copy()
    _put(history, 3, SECOND, state=TrialStatus.FAIL)
    _put(history, 16, SECOND)
    _put(copy, 16, FIRST, state=TrialStatus.COMPLETE, value=1.0)
    assert copy.config(3) == FIRST
    assert (len(history), len(copy)) == (17, 17)
    assert (history.config(16), copy.config(16)) == (SECOND, FIRST)
    assert (history.states[16], copy.states[16]) == (TrialStatus.RUNNING, TrialStatus.COMPLETE)


@given(strategies.spaces(), st.data())
def test_configurations_come_back_as_they_were(space: Space, data: st.DataObject) -> None:
    configs = data.draw(st.lists(strategies.configs(space), min_size=1, max_size=5))
    history = History(space)
    for number, config in enumerate(configs):
        _put(history, number, config)
    assert repr([history.config(number) for number in range(len(configs))]) == repr(configs)


def test_a_long_history_grows() -> None:
    history = History(SPACE)
    for number in range(1_000):
        _put(history, number, {**FIRST, "l2": 1e-6 * (number + 1)}, value=float(number))
    assert history.values.tolist() == list(range(1_000))
    assert history.config(999)["l2"] == 1e-3

"""The trials of a study as columns of numbers, as samplers read them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from ridgeline.search.ranges import Value
from ridgeline.search.space import Config, Space

# n trials, d parameters of the space, in its order


class TrialStatus(IntEnum):
    """The state of a trial, as a small number."""

    WAITING = 0
    RUNNING = 1
    COMPLETE = 2
    PRUNED = 3
    FAIL = 4


class History:
    """Trial history by columns, grown in place; row i is trial number i.

    The arrays that it shows are read-only views of what is known at the time: take them anew after
    a `put`, and a `copy` before anybody else may write.
    """

    def __init__(self, space: Space) -> None:
        self.space = space
        self._num_trials = 0
        fields: list[Any] = [("columns", np.float64, (len(space),)), ("value", np.float64)]
        fields += [("state", np.int8), ("enqueued", np.bool_)]
        self._rows = np.empty(16, np.dtype(fields, align=True))

    def __len__(self) -> int:
        return self._num_trials

    @property
    def columns(self) -> npt.NDArray[np.float64]:
        """Parameters [n, d], each in the form of its `to_column`, NaN where a trial lacks it."""
        return self._view("columns")

    @property
    def values(self) -> npt.NDArray[np.float64]:
        """Values [n]; NaN where a trial has none."""
        return self._view("value")

    @property
    def states(self) -> npt.NDArray[np.int8]:
        """`TrialStatus` [n]."""
        return self._view("state")

    @property
    def enqueued(self) -> npt.NDArray[np.bool_]:
        """Whether a person gave the trial [n], so that no sampler chose it."""
        return self._view("enqueued")

    def config(self, number: int) -> Config:
        """The configuration of trial `number`.

        Raises:
            IndexError: there is no such trial.
        """
        if not 0 <= number < self._num_trials:
            raise IndexError(f"the history has no trial {number}")
        return self.space.from_columns(self._rows["columns"][number].tolist())

    def put(
        self,
        number: int,
        config: Mapping[str, Value],
        *,
        enqueued: bool,
        state: TrialStatus,
        value: float | None,
    ) -> None:
        """Write trial `number`: the next one, or one that is known already.

        `config` must be a configuration of the space; see `Space.problems`.

        Raises:
            IndexError: a trial below `number` is missing.
        """
        if not 0 <= number <= self._num_trials:
            raise IndexError(f"trial {number} cannot follow {self._num_trials} trials")
        columns = self.space.to_columns(config)
        if number == len(self._rows):
            self._rows = np.concatenate([self._rows, np.empty_like(self._rows)])
        self._rows[number] = columns, math.nan if value is None else value, state, enqueued
        self._num_trials = max(self._num_trials, number + 1)

    def copy(self) -> History:
        """The same history, which later changes of this one leave as it is."""
        twin = History(self.space)
        twin._num_trials = self._num_trials
        twin._rows = self._rows.copy()
        return twin

    def _view(self, field: str) -> npt.NDArray[Any]:
        view = self._rows[field][: self._num_trials]
        view.flags.writeable = False
        return view

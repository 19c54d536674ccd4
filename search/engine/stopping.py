"""Early stopping: which epoch's weights are kept, and when to give up.  Free of torch."""

from __future__ import annotations

from typing import Any

from ridgeline.search.engine.config import Direction, RunConfig


class EarlyStopping:
    """Follows one monitored metric over the epochs of a run.

    With a patience, the kept epoch is the truly best one (the earlier, of equals), and the run
    stops after `patience` epochs in a row of which none improved by more than `min_delta` on the
    value at the last such improvement.  Without one, the last epoch is kept and nothing stops.

    A small improvement therefore moves `kept_epoch` without resetting the patience.
    """

    def __init__(self, patience: int | None, min_delta: float, direction: Direction) -> None:
        self._patience = patience
        self._min_delta = min_delta
        self._sign = 1.0 if direction == "maximize" else -1.0
        self._epoch = 0
        self._kept_epoch = 0
        self._kept_value: float | None = None
        self._reference: float | None = None
        self._epochs_waited = 0

    @classmethod
    def of(cls, config: RunConfig) -> EarlyStopping:
        """That of a run which has no epoch yet."""
        return cls(config.patience, config.min_delta, config.direction)

    @property
    def kept_epoch(self) -> int | None:
        """The epoch, counted from 1, whose weights are kept; None before the first."""
        return self._kept_epoch or None

    @property
    def kept_value(self) -> float | None:
        """The monitored metric at the kept epoch; None before the first."""
        return self._kept_value

    def update(self, value: float) -> bool:
        """Take in the next epoch's finite metric.

        Returns:
            Whether to stop now.  `kept_epoch` has then already moved where it should.
        """
        self._epoch += 1
        if self._patience is None or self._improves(value, self._kept_value, 0.0):
            self._kept_epoch, self._kept_value = self._epoch, value
        if self._improves(value, self._reference, self._min_delta):
            self._reference, self._epochs_waited = value, 0
        else:
            self._epochs_waited += 1
        return self._patience is not None and self._epochs_waited >= self._patience

    def state(self) -> dict[str, Any]:
        """Plain JSON data for `restore`."""
        return {
            "epoch": self._epoch,
            "kept_epoch": self._kept_epoch,
            "kept_value": self._kept_value,
            "reference": self._reference,
            "epochs_waited": self._epochs_waited,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a `state()` of the same settings."""
        self._epoch = state["epoch"]
        self._kept_epoch = state["kept_epoch"]
        self._kept_value = state["kept_value"]
        self._reference = state["reference"]
        self._epochs_waited = state["epochs_waited"]

    def _improves(self, value: float, reference: float | None, margin: float) -> bool:
        return reference is None or self._sign * (value - reference) > margin

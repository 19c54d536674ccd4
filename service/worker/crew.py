"""The runs on a device: passes orders to its trainer, and makes messages of what comes of them."""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from service.protocol import RunEnded, RunOrder, RunReport, StudyRules
from service.worker.messages import FromDevice, HandedBack, Key, Started, key_of
from service.worker.training import (
    MAX_LOG,
    Began,
    Failed,
    LogTail,
    Outcome,
    Over,
    Reported,
    Trainer,
    clean,
    error_text,
)

_log = logging.getLogger(__name__)


@dataclass
class _Run:
    program: str | None = None
    device_seconds: float = 0.0


class Crew:
    """All runs that a device has been given and has not ended.

    Attributes:
        failed: whether something other than memory has failed on the device.
    """

    def __init__(self, trainer: Trainer, tail: LogTail) -> None:
        self._trainer, self._tail = trainer, tail
        self._runs: dict[Key, _Run] = {}
        self.failed = False

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to train."""
        return self._trainer.is_idle

    def set_rules(self, rules: StudyRules) -> None:
        """Prune the runs of a study by these rules, instead of those before."""
        self._trainer.set_rules(rules)

    def take(self, order: RunOrder) -> Iterator[FromDevice]:
        """Have a run trained; its end, where it cannot be."""
        key = key_of(order)
        self._runs[key] = _Run()
        try:
            self._trainer.add(order)
        except Exception as exc:
            yield self._failure(key, exc)

    def stop(self, key: Key) -> Iterator[FromDevice]:
        """Train a run no further; its end is told if it has begun, and a waiting one just goes."""
        if key in self._runs:
            self._trainer.remove(key)
            if self._runs[key].program is None:
                del self._runs[key]
            else:
                yield self._end(key, "stopped")

    def advance(self) -> Iterator[FromDevice]:
        """Train for a moment; what is to be said of it."""
        before = time.monotonic()
        events = self._trainer.advance()
        for event in events:
            if isinstance(event, Began):
                self._runs[event.key].program = event.program
        training = [run for run in self._runs.values() if run.program is not None]
        for run in training:
            run.device_seconds += (time.monotonic() - before) / len(training)
        for event in events:
            match event:
                case Began(key=key, program=program):
                    yield Started(key, program)
                case Reported(key=key, epoch=epoch, metrics=metrics):
                    yield from self._report(key, epoch, dict(metrics))
                case Over(key=key, outcome=outcome):
                    if key in self._runs:
                        yield self._over(key, outcome)
                case Failed(key=key, error=error):
                    self.failed = self.failed or not isinstance(error, MemoryError)
                    yield self._failure(key, error)
                case HandedBack(key=key, limit=limit):
                    self.failed = self.failed or limit is not None
                    del self._runs[key]
                    yield event

    def hand_back(self) -> Iterator[FromDevice]:
        """Give every run back: the device is of no more use to them."""
        for key in self._runs:
            yield HandedBack(key, None)
        self._runs.clear()

    def _report(self, key: Key, epoch: int, metrics: dict[str, float]) -> Iterator[FromDevice]:
        try:
            report = RunReport(run=key[0], attempt=key[1], epoch=epoch, metrics=metrics)
        except ValueError as exc:  # a metric that JSON does not have, say
            self._trainer.remove(key)
            yield self._failure(key, exc)
        else:
            yield report

    def _over(self, key: Key, outcome: Outcome) -> RunEnded:
        diverged = outcome.diverged_epoch
        try:
            return self._end(
                key,
                outcome.state,
                value=outcome.value,
                kept_epoch=outcome.kept_epoch,
                metrics=dict(outcome.metrics),
                rule_version=outcome.rule_version,
                error=None if diverged is None else f"the loss was not finite in epoch {diverged}",
            )
        except ValueError as exc:
            return self._failure(key, exc)

    def _failure(self, key: Key, error: Exception) -> RunEnded:
        lines = [*self._tail.lines, "".join(traceback.format_exception(error))]
        return self._end(
            key,
            "out_of_memory" if isinstance(error, MemoryError) else "crashed",
            error=error_text(error),
            log_tail=clean("\n".join(lines))[-MAX_LOG:],
        )

    def _end(self, key: Key, outcome: str, **values: Any) -> RunEnded:
        run = self._runs[key]
        end = RunEnded.model_validate(
            {
                "run": key[0],
                "attempt": key[1],
                "outcome": outcome,
                "program": run.program,
                "device_seconds": run.device_seconds,
                **values,
            }
        )
        del self._runs[key]
        return end

"""The runs that a device process trains: what it is told of them, and what it says of them."""

from __future__ import annotations

import logging
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, cast

from pydantic import ValidationError

from ridgeline.search.events import (
    Began,
    Event,
    Failed,
    HandedBack,
    NeverTrains,
    Outcome,
    Over,
    Reported,
    Saved,
)
from ridgeline.search.measures import Measures
from ridgeline.service import logs
from ridgeline.service.protocol import RunEnded, RunOrder, RunReport, StudyRules
from ridgeline.service.texts import sendable
from ridgeline.service.worker.messages import (
    Checkpoint,
    FromDevice,
    Idle,
    Key,
    Prepared,
    Preparing,
    Released,
    Started,
    Stop,
    ToDevice,
    key_of,
)
from ridgeline.service.worker.shares import Shares
from ridgeline.service.worker.training import Trainer

LOG_LINES = 100
MAX_ERROR = 2_000
MAX_LOG = 10_000
"""Characters of an error, and of the end of a log, that are worth sending."""

_log = logging.getLogger(__name__)


class LogTail(logging.Handler):
    """Keeps the last lines that were logged, whatever run they are of."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.setFormatter(logs.TextLines(names_process=False))
        self.lines: deque[str] = deque(maxlen=LOG_LINES)

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


class Bench:
    """The runs of one device process.

    Args:
        frail: whether a crash spoils the whole device: after some errors a CUDA context fails every
            later call.
        send: says something to the agent; each call is a write to a pipe, and wakes it.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        trainer: Trainer,
        tail: LogTail,
        send: Callable[[Sequence[FromDevice]], None],
        *,
        frail: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._trainer = trainer
        self._tail = tail
        self._send = send
        self._unsaid: list[FromDevice] = []
        self._frail = frail
        self._programs: dict[Key, str | None] = {}  # of the open runs, once they train
        self._checkpoints: dict[Key, Checkpoint] = {}  # of runs whose orders are about to come
        self._shares = Shares(clock)
        self._num_idle = 0
        self._last_error: str | None = None
        """Told in the log since a run began to train: once for all that fail of it together."""
        self._spoiled_by: Exception | None = None

    @property
    def is_idle(self) -> bool:
        return self._trainer.is_idle

    @property
    def is_spoilt(self) -> bool:
        """Whether the process had better be started anew."""
        return self._spoiled_by is not None

    def take(self, message: ToDevice) -> None:
        """Do what the agent says."""
        match message:
            case RunOrder():
                self._add(message, self._checkpoints.pop(key_of(message), None))
            case Checkpoint(key=key):
                self._checkpoints[key] = message
            case StudyRules():
                self._trainer.set_rules(message)
            case Stop(key=key):
                self._trainer.remove(key)
                if key in self._programs:
                    self._unsaid.append(self._end(key, "stopped"))

    def advance(self) -> None:
        """Train for a moment, and say what has come of it."""
        self._say()  # what this moment may end with the process is said before
        for event in self._trainer.advance():
            if event.key in self._programs:
                run, attempt = event.key
                with logs.about(run=run, attempt=attempt):
                    self._unsaid.append(self._message(event))
        if (num_idle := self._trainer.num_idle) != self._num_idle:
            self._num_idle = num_idle
            self._unsaid.append(Idle(num_idle))
        self._say()

    def give_back(self) -> None:
        """Give back the runs that train; those that wait have not been touched."""
        self._unsaid += [Released(self._end(key, "released"), None) for key in list(self._shares)]
        self._say()

    # ----

    def _say(self) -> None:
        """Send what there is to say."""
        if self._unsaid:
            self._send(self._unsaid)
            self._unsaid = []

    def _add(self, order: RunOrder, checkpoint: Checkpoint | None) -> None:
        key = key_of(order)
        self._programs[key] = None
        self._unsaid.append(Preparing(key))
        self._say()
        with logs.about(study=order.study, trial=order.trial, run=order.run, attempt=order.attempt):
            try:
                self._trainer.add(order, checkpoint)
            except Exception as exc:
                self._unsaid.append(self._failure(key, exc))
            else:
                self._unsaid.append(Prepared(key))

    def _message(self, event: Event) -> FromDevice:
        key = cast(Key, event.key)  # that of the order, as the trainer was given it
        try:
            match event:
                case Began(program=program):
                    self._programs[key] = program
                    self._last_error = None
                    self._shares.begin(key)
                    return Started(key, program)
                case Reported(report=report):
                    run, attempt = key
                    return RunReport(
                        run=run, attempt=attempt, epoch=report.epoch, metrics=dict(report.metrics)
                    )
                case Saved(epoch=epoch, content=content):
                    begun_with = self._programs[key]
                    assert begun_with is not None, "it has begun"
                    return Checkpoint(key, epoch, begun_with, content)
                case Over(outcome=outcome):
                    return self._over(key, outcome)
                case Failed(error=error):
                    return self._failure(key, error)
                case HandedBack(error=error, limit=limit):
                    is_trusted = self._note(error)
                    return Released(self._end(key, "released"), limit if is_trusted else None)
        except ValidationError as exc:  # such as a metric that JSON does not have
            self._trainer.remove(key)
            return self._failure(key, exc)

    def _over(self, key: Key, outcome: Outcome) -> RunEnded:
        diverged = outcome.diverged_epoch
        return self._end(
            key,
            outcome.state,
            value=outcome.value,
            kept_epoch=outcome.kept_epoch,
            metrics=dict(outcome.metrics),
            measures=_told(outcome.measures),
            rule_version=outcome.rule_version,
            error=None if diverged is None else f"the loss was not finite in epoch {diverged}",
        )

    def _failure(self, key: Key, error: Exception) -> RunEnded | Released:
        if not self._note(error):
            return Released(self._end(key, "released"), None)
        if isinstance(error, NeverTrains):
            return self._end(key, "never_trains", error=sendable(str(error))[:MAX_ERROR])
        lines = [*self._tail.lines, "".join(traceback.format_exception(error))]
        return self._end(
            key,
            "out_of_memory" if isinstance(error, MemoryError) else "crashed",
            error=error_text(error),
            log_tail=sendable("\n".join(lines))[-MAX_LOG:],
        )

    def _end(self, key: Key, outcome: str, **values: Any) -> RunEnded:
        """The end of a run, which is then forgotten."""
        run, attempt = key
        end = RunEnded.model_validate(
            {
                "run": run,
                "attempt": attempt,
                "outcome": outcome,
                "program": self._programs[key],
                "device_seconds": self._shares.seconds(key),
                **values,
            }
        )
        self._shares.end(key)
        del self._programs[key]
        return end

    def _note(self, error: Exception) -> bool:
        """Whether the error tells something of those it came to: not once the device is spoilt."""
        if self._spoiled_by is not None:
            return error is self._spoiled_by
        if (text := error_text(error)) != self._last_error:
            _log.warning("runs failed: %s", text)
        self._last_error = text
        # A ValueError is a person's mistake, and memory that ran out is free again.
        if self._frail and not isinstance(error, ValueError | MemoryError):
            self._spoiled_by = error
        return True


def _told(measures: object | None) -> Measures | None:
    """Measures as they are sent, from those of the engine."""
    if measures is None:
        return None
    try:
        return Measures.model_validate(measures, from_attributes=True)
    except ValidationError as exc:  # a module of somebody's may have more layers, or longer names
        _log.warning("the measures of a run are not sent: %s", exc)
        return None


def error_text(exc: Exception) -> str:
    """What to tell a person of an exception, fit to be sent."""
    return sendable(f"{type(exc).__name__}: {exc}")[:MAX_ERROR]

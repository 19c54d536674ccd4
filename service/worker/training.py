"""One run on a device: the trainer it needs, and what is told of it while it trains."""

from __future__ import annotations

import logging
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from service.protocol import DatasetInfo, RunEnded, RunOrder, RunReport
from service.worker.messages import Started, key_of

LOG_LINES = 100
MAX_ERROR = 2_000
MAX_LOG = 10_000
"""Characters of an error, and of the end of a log, that are worth sending."""


@dataclass(frozen=True)
class DeviceSpec:
    """What a device process is started with.

    `name` None takes the first device there is.  `survey` asks for the machine's devices and data
    sets in the `Hello`.
    """

    name: str | None
    data_root: Path | None
    threads: int | None
    survey: bool = False


class Epoch(Protocol):
    @property
    def epoch(self) -> int: ...
    @property
    def metrics(self) -> Mapping[str, float]: ...


class Outcome(Protocol):
    @property
    def state(self) -> Literal["complete", "diverged", "pruned", "stopped"]: ...
    @property
    def value(self) -> float | None: ...
    @property
    def kept_epoch(self) -> int | None: ...
    @property
    def diverged_epoch(self) -> int | None: ...
    @property
    def metrics(self) -> Mapping[str, float]: ...


class Training(Protocol):
    """A run: iterate it to train it, then read its outcome."""

    def __iter__(self) -> Iterator[Epoch]: ...
    @property
    def outcome(self) -> Outcome: ...


class Trainer(Protocol):
    """Trains runs on one device."""

    @property
    def program(self) -> str: ...
    def start(self, order: RunOrder) -> Training:
        """The run of an order; it, and iterating it, raise MemoryError where memory runs out."""
        ...


class Backend(Protocol):
    """What a device process trains with; pickled on its way there."""

    def devices(self) -> tuple[str, ...]:
        """All devices of this machine that it can use."""
        ...

    def datasets(self, data_root: Path | None) -> tuple[DatasetInfo, ...]: ...
    def trainer(self, device: str, spec: DeviceSpec) -> Trainer:
        """The trainer of one device; fails where the device cannot be used."""
        ...


class MlpBackend:
    """The task mlp, on torch, which is imported in the device process alone."""

    def devices(self) -> tuple[str, ...]:
        import torch

        if torch.cuda.is_available():
            return tuple(f"cuda:{index}" for index in range(torch.cuda.device_count()))
        return ("cpu:0",)

    def datasets(self, data_root: Path | None) -> tuple[DatasetInfo, ...]:
        from search.tasks.datasets import cards

        return tuple(DatasetInfo(**asdict(card)) for card in cards(data_root))

    def trainer(self, device: str, spec: DeviceSpec) -> Trainer:
        return MlpTrainer(device, spec)


class MlpTrainer:
    """The trainer of the task mlp, told what to do by orders."""

    def __init__(self, device: str, spec: DeviceSpec) -> None:
        from search.tasks.training import Trainer

        self._trainer = Trainer(spec.data_root, device, spec.threads)

    @property
    def program(self) -> str:
        return self._trainer.program

    def start(self, order: RunOrder) -> Training:
        from search.spec import EarlyStopping, Objective, Penalty
        from search.tasks.settings import MlpSettings
        from search.tasks.training import RunInput

        stopping = order.early_stopping
        return self._trainer.start(
            RunInput(
                task=MlpSettings.model_validate(order.task),
                config=order.config,
                seed=order.seed,
                objective=Objective.model_validate(order.objective),
                early_stopping=None if stopping is None else EarlyStopping.model_validate(stopping),
                penalty=Penalty.model_validate(order.penalty),
                data_fingerprint=order.data_fingerprint,
            )
        )


class LogTail(logging.Handler):
    """Keeps the last lines that were logged."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        self.lines: deque[str] = deque(maxlen=LOG_LINES)

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


def train(
    trainer: Trainer, order: RunOrder, tail: LogTail, stopped: Callable[[], bool]
) -> Iterator[Started | RunReport | RunEnded]:
    """Train one run; what is to be said of it, when it is to be said, its end last."""
    began = time.monotonic()
    program = trainer.program
    names: dict[str, Any] = {"run": order.run, "attempt": order.attempt}

    def end(outcome: str, **values: Any) -> RunEnded:
        seconds = time.monotonic() - began
        return RunEnded.model_validate(
            {**names, "outcome": outcome, "program": program, "device_seconds": seconds, **values}
        )

    yield Started(key_of(order), program)
    try:
        training = trainer.start(order)
        for report in training:
            yield RunReport(**names, epoch=report.epoch, metrics=dict(report.metrics))
            if stopped():
                yield end("stopped")
                return
        result = training.outcome
        diverged = result.diverged_epoch
        last = end(
            result.state,
            value=result.value,
            kept_epoch=result.kept_epoch,
            metrics=dict(result.metrics),
            error=None if diverged is None else f"the loss was not finite in epoch {diverged}",
        )
    except Exception as exc:
        lines = [*tail.lines, traceback.format_exc()]
        last = end(
            "out_of_memory" if isinstance(exc, MemoryError) else "crashed",
            error=error_text(exc),
            log_tail=_clean("\n".join(lines))[-MAX_LOG:],
        )
    yield last


def error_text(exc: Exception) -> str:
    """What to tell a person of an exception, fit to be sent."""
    return _clean(f"{type(exc).__name__}: {exc}")[:MAX_ERROR]


def _clean(text: str) -> str:
    """`text` without what JSON or PostgreSQL cannot carry: lone surrogates and NUL."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8").replace("\0", "\\0")

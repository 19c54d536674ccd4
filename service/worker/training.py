"""What trains on a device: the trainer, what it tells, and how it is made."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, cast

from service.protocol import DatasetInfo, RunOrder, StudyRules
from service.worker.messages import HandedBack, Key, key_of

if TYPE_CHECKING:
    from search import engine

_log = logging.getLogger(__name__)

LOG_LINES = 100
MAX_ERROR = 2_000
MAX_LOG = 10_000
"""Characters of an error, and of the end of a log, that are worth sending."""


@dataclass(frozen=True)
class DeviceSpec:
    """What a device process is started with.

    `name` None takes the first device there is.  `survey` asks for the machine's devices and data
    sets in the `Hello`.  `width`, `compile` and `cache` are the engine's `LaneOptions`.
    """

    name: str | None
    data_root: Path | None
    threads: int | None
    survey: bool = False
    width: int | None = None
    compile: bool = True
    cache: Path | None = None


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
    @property
    def rule_version(self) -> int | None: ...


@dataclass(frozen=True)
class Began:
    """The run trains from now on, by this program."""

    key: Key
    program: str


@dataclass(frozen=True)
class Reported:
    key: Key
    epoch: int
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Over:
    key: Key
    outcome: Outcome


@dataclass(frozen=True)
class Failed:
    """The run failed with nobody else involved; a MemoryError: it does not fit alone."""

    key: Key
    error: Exception


Event = Began | Reported | Over | Failed | HandedBack


class Trainer(Protocol):
    """Trains runs on one device, as many at once as suit it."""

    @property
    def program(self) -> str:
        """The identity of the program that a run begins with unless a better one is at hand."""
        ...

    @property
    def num_slots(self) -> int:
        """How many runs it trains at once."""
        ...

    @property
    def is_idle(self) -> bool:
        """Whether it has no run."""
        ...

    def add(self, order: RunOrder) -> None:
        """Take a run in; any exception says why it cannot be trained."""
        ...

    def remove(self, key: Key) -> None:
        """Train a run no further."""
        ...

    def set_rules(self, rules: StudyRules) -> None:
        """Prune the runs of a study by these rules, instead of those before."""
        ...

    def advance(self) -> Sequence[Event]:
        """Train for a moment; what has come of it."""
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
        from search.engine import LaneOptions
        from search.tasks.training import Trainer

        options = LaneOptions(width=spec.width, compile=spec.compile, cache=spec.cache)
        self._trainer = Trainer(spec.data_root, device, spec.threads, options)

    @property
    def program(self) -> str:
        return self._trainer.program

    @property
    def num_slots(self) -> int:
        return self._trainer.num_slots

    @property
    def is_idle(self) -> bool:
        return self._trainer.is_idle

    def add(self, order: RunOrder) -> None:
        from search.spec import EarlyStopping, Objective, Penalty
        from search.tasks.settings import MlpSettings
        from search.tasks.training import RunInput

        stopping = order.early_stopping
        run = RunInput(
            task=MlpSettings.model_validate(order.task),
            config=order.config,
            seed=order.seed,
            objective=Objective.model_validate(order.objective),
            early_stopping=None if stopping is None else EarlyStopping.model_validate(stopping),
            penalty=Penalty.model_validate(order.penalty),
            data_fingerprint=order.data_fingerprint,
            reproducible=order.reproducible,
        )
        self._trainer.add(key_of(order), run, group=order.study)

    def remove(self, key: Key) -> None:
        self._trainer.remove(key)

    def set_rules(self, rules: StudyRules) -> None:
        from search.engine import PruningRules

        self._trainer.set_rules(
            rules.study,
            PruningRules(rules.version, rules.metric, rules.direction, rules.thresholds),
        )

    def advance(self) -> Sequence[Event]:
        return [self._event(event) for event in self._trainer.advance()]

    def _event(self, event: engine.Event) -> Event:
        from search import engine

        key = cast(Key, event.key)
        match event:
            case engine.Began(program=program):
                return Began(key, program)
            case engine.Reported(report=report):
                return Reported(key, report.epoch, report.metrics)
            case engine.Over(outcome=outcome):
                return Over(key, outcome)
            case engine.HandedBack(error=error, limit=limit):
                _log.warning("run %d is handed back: %s", key[0], error_text(error))
                return HandedBack(key, limit)
            case engine.Failed(error=error):
                return Failed(key, error)


class LogTail(logging.Handler):
    """Keeps the last lines that were logged."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        self.lines: deque[str] = deque(maxlen=LOG_LINES)

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


def error_text(exc: Exception) -> str:
    """What to tell a person of an exception, fit to be sent."""
    return clean(f"{type(exc).__name__}: {exc}")[:MAX_ERROR]


def clean(text: str) -> str:
    """`text` without what JSON or PostgreSQL cannot carry: lone surrogates and NUL."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8").replace("\0", "\\0")

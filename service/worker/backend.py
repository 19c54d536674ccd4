"""The engine as the backend of device processes, in which alone torch is imported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, cast

from ridgeline.search.events import Event
from ridgeline.service.protocol import DatasetInfo, RunOrder, StudyRules
from ridgeline.service.worker.messages import Checkpoint, Key, key_of
from ridgeline.service.worker.training import DeviceSpec, Trainer

if TYPE_CHECKING:
    from ridgeline.search.tasks.base import RunInput


class EngineBackend:
    """Trains the installed tasks on the GPUs of this machine, or on its CPU."""

    def devices(self) -> tuple[str, ...]:
        from ridgeline.search.tasks.training import device_names

        return device_names()

    def datasets(self) -> tuple[DatasetInfo, ...]:
        from ridgeline.search.tasks.datasets import built_in_cards

        return tuple(DatasetInfo(**asdict(card)) for card in built_in_cards())

    def trainer(self, device: str, spec: DeviceSpec) -> Trainer:
        return EngineTrainer(device, spec)


class EngineTrainer:
    """The lanes of one device, told what to do by orders."""

    def __init__(self, device: str, spec: DeviceSpec) -> None:
        from ridgeline.search.engine import LaneOptions, Lanes
        from ridgeline.search.tasks.training import Preparer, open_device

        options = LaneOptions(
            width=spec.width,
            compile=spec.compile,
            cache=spec.cache,
            threads=spec.threads,
            save_seconds=spec.checkpoint_seconds,
        )
        opened = open_device(device)
        self._lanes = Lanes(opened, options)
        self._adding: dict[Key, object] = {}
        """A run whose network is being built, by a person's code, which may hang as in training."""
        # Not beside training, so that it is known whose fault a crash is.
        self._preparer = Preparer(spec.data_root, opened, before_loading=self._lanes.settle)

    @property
    def num_slots(self) -> int:
        return self._lanes.num_slots

    @property
    def is_idle(self) -> bool:
        return self._lanes.is_idle

    @property
    def num_idle(self) -> int:
        return self._lanes.num_idle

    def add(self, order: RunOrder, checkpoint: Checkpoint | None = None) -> None:
        from ridgeline.search.tasks.training import memory_errors

        run = self._preparer.prepare(_run_input(order))
        self._adding = {key_of(order): object()}
        try:
            with memory_errors():
                self._lanes.add(
                    key_of(order),
                    *run,
                    group=order.study,
                    bracket=order.bracket,
                    num_following=order.num_following,
                    pinned=order.reproducible,
                    checkpoint=None if checkpoint is None else checkpoint.content,
                )
        finally:
            self._adding = {}

    def remove(self, key: Key) -> bool:
        return self._lanes.remove(key)

    def set_rules(self, rules: StudyRules) -> None:
        from ridgeline.search.engine import PruningRules

        self._lanes.set_rules(
            rules.study,
            PruningRules(
                rules.version, rules.metric, rules.direction, rules.thresholds, rules.predictions
            ),
            bracket=rules.bracket,
        )

    def advance(self) -> Sequence[Event]:
        return self._lanes.advance()

    def turns(self) -> Mapping[Key, object]:
        # The keys are those of the orders, as they were given.
        return self._adding | cast(dict[Key, object], self._lanes.turns())


def _run_input(order: RunOrder) -> RunInput[Any]:
    from ridgeline.search.objective import EarlyStopping, Objective, Penalty
    from ridgeline.search.tasks.any_settings import settings_of
    from ridgeline.search.tasks.base import RunInput

    stopping = order.early_stopping
    return RunInput(
        task=settings_of(order.task),
        config=order.config,
        seed=order.seed,
        objective=Objective.model_validate(order.objective),
        early_stopping=None if stopping is None else EarlyStopping.model_validate(stopping),
        penalty=Penalty.model_validate(order.penalty),
        data_fingerprint=order.data_fingerprint,
        replicate=order.replicate,
    )

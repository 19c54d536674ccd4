"""The task mlp, on torch, which is imported in the device process alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, cast

from ridgeline.search.events import Event
from ridgeline.service.protocol import DatasetInfo, RunOrder, StudyRules
from ridgeline.service.worker.messages import Key, key_of
from ridgeline.service.worker.training import DeviceSpec, Trainer

if TYPE_CHECKING:
    from ridgeline.search.tasks.training import RunInput


class MlpBackend:
    """Trains the task mlp on the GPUs of this machine, or on its CPU."""

    def devices(self) -> tuple[str, ...]:
        import torch

        if torch.cuda.is_available():
            return tuple(f"cuda:{index}" for index in range(torch.cuda.device_count()))
        return ("cpu:0",)

    def datasets(self) -> tuple[DatasetInfo, ...]:
        from ridgeline.search.tasks.datasets import built_in_cards

        return tuple(DatasetInfo(**asdict(card)) for card in built_in_cards())

    def trainer(self, device: str, spec: DeviceSpec) -> Trainer:
        return MlpTrainer(device, spec)


class MlpTrainer:
    """The trainer of the task mlp, told what to do by orders."""

    def __init__(self, device: str, spec: DeviceSpec) -> None:
        from ridgeline.search.engine import LaneOptions
        from ridgeline.search.tasks.training import Trainer

        options = LaneOptions(
            width=spec.width, compile=spec.compile, cache=spec.cache, threads=spec.threads
        )
        self._trainer = Trainer(spec.data_root, device, options)

    @property
    def num_slots(self) -> int:
        return self._trainer.num_slots

    @property
    def is_idle(self) -> bool:
        return self._trainer.is_idle

    @property
    def num_idle(self) -> int:
        return self._trainer.num_idle

    def add(self, order: RunOrder) -> None:
        self._trainer.add(
            key_of(order),
            _run_input(order),
            group=order.study,
            num_following=order.num_following,
        )

    def remove(self, key: Key) -> bool:
        return self._trainer.remove(key)

    def set_rules(self, rules: StudyRules) -> None:
        from ridgeline.search.engine import PruningRules

        self._trainer.set_rules(
            rules.study,
            PruningRules(rules.version, rules.metric, rules.direction, rules.thresholds),
        )

    def advance(self) -> Sequence[Event]:
        return self._trainer.advance()

    def turns(self) -> Mapping[Key, object]:
        # The keys are those of the orders, as they were given.
        return cast(Mapping[Key, object], self._trainer.turns())


def _run_input(order: RunOrder) -> RunInput:
    from ridgeline.search.objective import EarlyStopping, Objective, Penalty
    from ridgeline.search.tasks.settings import MlpSettings
    from ridgeline.search.tasks.training import RunInput

    stopping = order.early_stopping
    return RunInput(
        task=MlpSettings.model_validate(order.task),
        config=order.config,
        seed=order.seed,
        objective=Objective.model_validate(order.objective),
        early_stopping=None if stopping is None else EarlyStopping.model_validate(stopping),
        penalty=Penalty.model_validate(order.penalty),
        data_fingerprint=order.data_fingerprint,
        reproducible=order.reproducible,
    )

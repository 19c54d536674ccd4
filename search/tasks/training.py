"""Trains runs of the task mlp on one device: from what a worker is ordered to do, to the engine.

Importing this module imports no torch: the process that only passes orders on stays small.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ridgeline.search.objective import EarlyStopping, Objective, Penalty
from ridgeline.search.space import Config
from ridgeline.search.tasks.data import DatasetError, UnfitDataset
from ridgeline.search.tasks.datasets import load
from ridgeline.search.tasks.kinds import Classes
from ridgeline.search.tasks.settings import MlpSettings, Split
from ridgeline.search.tasks.splits import prepare

if TYPE_CHECKING:
    import torch

    from ridgeline.search import engine

_MAX_PREPARED = 4
"""Data sets kept on the device, the most recently used; more studies than this rarely alternate."""


@dataclass(frozen=True)
class RunInput:
    """All that decides what a run comes to, but the program that trains it.

    `config` has a value for every parameter of the task.  `data_fingerprint` is that of the data
    set the study was created with; None takes the data as they are.  A `reproducible` run is
    trained by the same program whatever else there is to train.
    """

    task: MlpSettings
    config: Config
    seed: int
    objective: Objective
    early_stopping: EarlyStopping | None
    penalty: Penalty
    data_fingerprint: str | None
    reproducible: bool = False


@dataclass(frozen=True)
class _Prepared:
    fingerprint: str
    data: engine.DeviceData


class Trainer:
    """One device, the data sets on it, and the runs that train there.

    On a CPU, torch's operations on the calling thread take one thread from now on.

    Args:
        device_name: "cpu:0" or "cuda:N".
        options: how the device trains.

    Raises:
        ValueError: there is no such device here.
    """

    def __init__(
        self,
        data_root: Path | None,
        device_name: str,
        options: engine.LaneOptions,
    ) -> None:
        import torch

        from ridgeline.search.engine import Lanes

        self._data_root = data_root
        self._device = _device(device_name)
        if self._device.type == "cpu":
            # The packs' threads need the cores; this one would have to wait for them.
            torch.set_num_threads(1)
        self._lanes = Lanes(self._device, options)
        self._prepared: OrderedDict[tuple[str, Split], _Prepared] = OrderedDict()

    @property
    def num_slots(self) -> int:
        """How many runs train at once."""
        return self._lanes.num_slots

    @property
    def is_idle(self) -> bool:
        """Whether there is no run."""
        return self._lanes.is_idle

    @property
    def num_idle(self) -> int:
        """Slots of packs in training that no run is in."""
        return self._lanes.num_idle

    def add(
        self,
        key: Hashable,
        run: RunInput,
        *,
        group: str | None = None,
        num_following: int = 0,
    ) -> None:
        """Have a run trained; `key`, `group` and `num_following` are as in `engine.Lanes.add`.

        Raises:
            DatasetError: the data set is not here, is not the study's, or cannot be split.
            ValueError: the configuration is not complete, or not one of this task's.
            MemoryError: the data do not fit on the device.
        """
        config, model, data = self.prepare(run)
        self._lanes.add(
            key,
            config,
            model,
            data,
            group=group,
            num_following=num_following,
            pinned=run.reproducible,
        )

    def prepare(self, run: RunInput) -> tuple[engine.RunConfig, engine.Mlp, engine.DeviceData]:
        """A run as the engine takes it; raises what `add` does."""
        from ridgeline.search import engine

        with _memory_errors():
            data = self._data(run)
        model = engine.Mlp(
            num_features=math.prod(data.sample_shape),
            hidden=run.task.hidden,
            num_outputs=data.targets.count,
            activation=run.task.activation,
            batch_norm=run.task.batch_norm,
        )
        return _run_config(run), model, data

    def remove(self, key: Hashable) -> bool:
        """Train a run no further; False where there is none of that key."""
        return self._lanes.remove(key)

    def set_rules(self, group: str, rules: engine.PruningRules) -> None:
        """Prune the runs of a group by these rules from their next epochs on."""
        self._lanes.set_rules(group, rules)

    def advance(self) -> Sequence[engine.Event]:
        """Train for a moment; what there is to tell, in the order in which it came about."""
        return self._lanes.advance()

    def turns(self) -> Mapping[Hashable, object]:
        """By run that is trained at this moment, its turn; may be called from any thread."""
        return self._lanes.turns()

    def _data(self, run: RunInput) -> engine.DeviceData:
        key = (run.task.dataset, run.task.split)
        prepared, wanted = self._prepared.get(key), run.data_fingerprint
        if prepared is None or wanted not in (None, prepared.fingerprint):
            # Other data than in the cache may be the study's: the files may have been replaced.
            self._lanes.settle()
            prepared = self._prepared[key] = self._load(*key, wanted)
        self._prepared.move_to_end(key)
        while len(self._prepared) > _MAX_PREPARED:
            self._prepared.popitem(last=False)
        return prepared.data

    def _load(self, name: str, split: Split, wanted: str | None) -> _Prepared:
        from ridgeline.search.engine import DeviceData

        dataset = load(name, self._data_root)
        if wanted not in (None, dataset.fingerprint):
            raise DatasetError(
                f"data set {name} is not the one the study was created with: its fingerprint here "
                f"is {dataset.fingerprint}, the study's is {wanted}"
            )
        if not isinstance(dataset.targets, Classes):
            raise UnfitDataset(f"data set {name}: its targets are no classes")
        parts = prepare(dataset, split)
        data = DeviceData.from_arrays(
            parts.train,
            parts.validation,
            parts.test,
            num_classes=dataset.targets.count,
            device=self._device,
        )
        return _Prepared(dataset.fingerprint, data)


def _run_config(run: RunInput) -> engine.RunConfig:
    from ridgeline.search.engine import RunConfig

    # The engine has defaults of its own, which must not stand in for the task's.
    differing = sorted(set(run.config) ^ set(MlpSettings.parameters))
    if differing:
        state = "lacks" if differing[0] in MlpSettings.parameters else "must not have"
        raise ValueError(f"the run's configuration {state} {differing[0]}")
    stopping = run.early_stopping
    settings = {
        **run.config,
        **run.penalty.model_dump(),
        **({} if stopping is None else stopping.model_dump()),
        "monitor": run.objective.metric,
        "direction": run.objective.direction,
    }
    return RunConfig(seed=run.seed, **settings)


def _device(name: str) -> torch.device:
    import torch

    if name == "cpu:0":
        return torch.device("cpu")
    known = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    if name not in known:
        raise ValueError(f"there is no device {name} here, only {', '.join(['cpu:0', *known])}")
    return torch.device(name)


@contextmanager
def _memory_errors() -> Iterator[None]:
    """Turn torch's ways to say that memory has run out into Python's one."""
    from ridgeline.search.engine.admission import is_out_of_memory

    try:
        yield
    except RuntimeError as exc:
        if is_out_of_memory(exc):
            raise MemoryError(str(exc)) from exc
        raise

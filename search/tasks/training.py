"""From what a worker is ordered to do, to runs as the engine takes them, with data on the device.

Importing this module imports no torch: the process that only passes orders on stays small.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ridgeline.search.tasks.base import DataChoice, EngineTask, RunInput
from ridgeline.search.tasks.data import DatasetError, UnfitDataset
from ridgeline.search.tasks.datasets import load
from ridgeline.search.tasks.kinds import Classes, Features, Targets, Tokens
from ridgeline.search.tasks.registry import task_of
from ridgeline.search.tasks.settings import ClassWeights
from ridgeline.search.tasks.splits import prepare

if TYPE_CHECKING:
    import torch

    from ridgeline.search.engine import DeviceData, RunConfig
    from ridgeline.search.engine.models.base import Model

_MAX_PREPARED = 4
"""Data sets kept on the device, the most recently used, each in all divisions that runs have asked
for, as those of a trial alternate; more studies than this rarely do."""


class PreparedRun(NamedTuple):
    """What `engine.Lanes.add` and `engine.TrainingRun` take of a run."""

    config: RunConfig
    model: Model
    data: DeviceData


@dataclass(frozen=True)
class _Prepared:
    """Of a data set, whose features tasks are given as those of its parts are."""

    fingerprint: str
    features: Features
    given: Features
    targets: Targets
    data: DeviceData


class Preparer:
    """Makes runs ready for one device, and keeps the data sets on it that they train on.

    Args:
        before_loading: called before a data set is read and put on the device.
    """

    def __init__(
        self,
        data_root: Path | None,
        device: torch.device,
        *,
        before_loading: Callable[[], None] = lambda: None,
    ) -> None:
        self._data_root = data_root
        self._device = device
        self._before_loading = before_loading
        self._prepared: OrderedDict[DataChoice, dict[int, _Prepared]] = OrderedDict()

    def prepare(self, run: RunInput[Any]) -> PreparedRun:
        """A run as the engine takes it.

        Raises:
            DatasetError: the data set is not here, is not the study's, or cannot be split or
                trained on by the task.
            ValueError: the configuration is not complete, or not one of this task's; or the task is
                not installed here.
            MemoryError: the data do not fit on the device.
        """
        from ridgeline.search.engine.losses import LOSSES

        task = task_of(run.task)
        if not isinstance(task, EngineTask):
            raise ValueError(f"the task {task.name} is not installed on this worker")
        with memory_errors():
            found = self._data(task, run)
        config, model = task.prepare(run, found.given, found.targets)
        try:
            found.data.check_monitor(LOSSES[config.loss], config.monitor)
            if (weights := task.class_weights(run.task)) is not None:
                config = replace(config, class_weights=_weights(weights, found.data))
        except ValueError as exc:
            raise UnfitDataset(f"data set {task.data(run.task).dataset}: {exc}") from exc
        return PreparedRun(config, model, found.data.shaped(model.sample_shape))

    def _data(self, task: EngineTask[Any], run: RunInput[Any]) -> _Prepared:
        choice, wanted = task.data(run.task), run.data_fingerprint
        division = run.replicate % choice.split.num_divisions
        known = self._prepared.get(choice, {})
        prepared = known.get(division)
        if prepared is None or wanted not in (None, prepared.fingerprint):
            # Other data than in the cache may be the study's: the files may have been replaced.
            self._before_loading()
            prepared = self._load(task, run, division)
            known = {
                at: one for at, one in known.items() if one.fingerprint == prepared.fingerprint
            }
            self._prepared[choice] = {**known, division: prepared}
        _check_fit(task, run, prepared.features, prepared.targets)
        self._prepared.move_to_end(choice)
        while len(self._prepared) > _MAX_PREPARED:
            self._prepared.popitem(last=False)
        return prepared

    def _load(self, task: EngineTask[Any], run: RunInput[Any], division: int) -> _Prepared:
        from ridgeline.search.engine import DeviceData

        choice, wanted = task.data(run.task), run.data_fingerprint
        dataset = load(choice.dataset, self._data_root, choice.reading)
        fingerprint = dataset.named_as or dataset.fingerprint
        if wanted not in (None, fingerprint):
            raise DatasetError(
                f"data set {choice.dataset} is not the one the study was created with: its "
                f"fingerprint here is {fingerprint}, the study's is {wanted}"
            )
        _check_fit(task, run, dataset.features, dataset.targets)
        parts, targets = prepare(dataset, choice.split, choice.bag, division), dataset.targets
        num_classes = targets.count if isinstance(targets, Classes) else None
        data = DeviceData.from_arrays(
            parts.train,
            parts.validation,
            parts.test,
            num_classes=num_classes,
            device=self._device,
            are_ids=isinstance(parts.features, Tokens),
            unit=parts.unit,
            fingerprint=parts.fingerprint,
            class_names=[dataset.class_called(number) for number in range(num_classes or 0)],
            trains_on_validation=parts.trains_on_validation,
        )
        return _Prepared(fingerprint, dataset.features, parts.features, targets, data)


def device_names() -> tuple[str, ...]:
    """The devices of this machine: its GPUs, or else its CPU."""
    import torch

    if torch.cuda.is_available():
        return tuple(f"cuda:{index}" for index in range(torch.cuda.device_count()))
    return ("cpu:0",)


def open_device(name: str) -> torch.device:
    """The device of this name, "cpu:0" or "cuda:N".

    On a CPU, torch's operations on the calling thread take one thread from now on.

    Raises:
        ValueError: there is no such device here.
    """
    import torch

    if name == "cpu:0":
        # The packs' threads need the cores; this one would have to wait for them.
        torch.set_num_threads(1)
        return torch.device("cpu")
    known = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    if name not in known:
        raise ValueError(f"there is no device {name} here, only {', '.join(['cpu:0', *known])}")
    return torch.device(name)


def _weights(said: ClassWeights, data: DeviceData) -> tuple[float, ...]:
    """Those of the classes; balanced ones by which all classes come to the same together.

    Raises:
        ValueError: they are to be balanced, and a class has no training rows.
    """
    if said != "balanced":
        return said
    counts = data.train.class_counts(data.targets.count)
    if 0 in counts:
        name = data.class_called(counts.index(0))
        raise ValueError(f"no training row is of class {name}, which has to be balanced")
    return tuple(sum(counts) / (len(counts) * count) for count in counts)


def _check_fit(
    task: EngineTask[Any], run: RunInput[Any], features: Features, targets: Targets
) -> None:
    problem = task.unfit(run.task, run.objective.metric, features, targets)
    if problem is not None:
        field, reason = problem
        of_data = f"data set {task.data(run.task).dataset}: {reason}"
        raise UnfitDataset(of_data if field == "task.dataset" else f"{field} {reason}")


@contextmanager
def memory_errors() -> Iterator[None]:
    """Turn torch's ways to say that memory has run out into Python's one."""
    from ridgeline.search.engine.admission import is_out_of_memory

    try:
        yield
    except RuntimeError as exc:
        if is_out_of_memory(exc):
            raise MemoryError(str(exc)) from exc
        raise

"""Compiled programs: ahead of time, in a process of their own, and kept for every later process.

`torch.export` takes step and evaluation as they stand in `step` and `evaluation`, AOTInductor makes
native libraries of them, and calling those costs neither guards nor the interpreter: 25 µs for a
whole step of a small model, where the eager one takes 150.  One program serves every width, batch
size and number of steps and samples.  A folder holds one program; its name is a hash of all that
went into it, so a program of another torch, processor or version of this engine is never taken for
it.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.fx.experimental._config as export_config
from torch import Tensor
from torch.export import Dim

from ridgeline.search.engine import processor
from ridgeline.search.engine.config import Augmentation, Regulariser
from ridgeline.search.engine.data import DeviceData, Split
from ridgeline.search.engine.evaluation import EvaluationMemory, TracedEvaluation
from ridgeline.search.engine.losses import LOSSES, Targets
from ridgeline.search.engine.memory import PackMemory
from ridgeline.search.engine.models.base import Model
from ridgeline.search.engine.models.registry import model_from_dict
from ridgeline.search.engine.native import CompiledModel, Kernels
from ridgeline.search.engine.sources import reachable
from ridgeline.search.engine.spec import Family, StepSpec
from ridgeline.search.engine.step import Terms, TracedStep

_STEP, _EVALUATION = "step", "evaluation"

_SLOTS, _ROWS = 8, 64
"""Of the example that a program is compiled from; the compiler takes sizes near them as likely."""

_STEP_SIZES = {
    "x": "N",
    "y": "N",
    "samples": "KSB",
    "rates": "KSc",
    "constants": "Kc",
    "dropout_keys": "KS",
    "dropout_thresholds": "Kc",
    "dropout_counters": "uB",
    "invalid": "SB",
    "num_valid": "S",
    "augmentation.keys": "KS",
    "augmentation.strengths": "Kc",
    "augmentation.tables": "Kct",
    "augmentation.draws": "cB",
    "augmentation.noise": "Bd",
    "augmentation.normal": "t",
    "regularisers.input_keys": "KS",
    "regularisers.input_thresholds": "Kc",
    "regularisers.input_scales": "Kc",
    "regularisers.input_counters": "Bd",
    "regularisers.noise_keys": "KS",
    "regularisers.noise_scales": "KS",
    "regularisers.noise_counters": "p",
    "regularisers.normal": "t",
}
"""The dimensions of inputs whose first is not the slots alone; others, and those in lower case, are
fixed for a model."""

_EVALUATION_SIZES = {"x": "B", "y": "B", "num_valid": ""}

_BEYOND_CACHE = 2**23
"""Numbers of a data set that come from memory, not from a CPU's cache."""


class CompiledProgram:
    """A program from its folder.

    Args:
        kernels: which call it on a CPU; a GPU's needs none.

    Raises:
        OSError, RuntimeError: there is none, or not one for this machine.
    """

    def __init__(self, folder: Path, kernels: Kernels | None) -> None:
        self._folder, self._kernels = folder, kernels
        if kernels is not None:
            for name in (_STEP, _EVALUATION):
                ctypes.CDLL(str(folder / f"{name}.so"))
        else:
            self._loaders = {
                name: torch._inductor.aoti_load_package(str(folder / f"{name}.pt2")).loader
                for name in (_STEP, _EVALUATION)
            }

    def bind_step(self, inputs: Mapping[str, Tensor]) -> Callable[[Terms, int], None]:
        """So many steps over these tensors of `PackMemory.inputs`."""
        run = self._bind(_STEP, inputs)
        return lambda terms, count: run(count)

    def bind_evaluation(self, inputs: Sequence[Mapping[str, Tensor]]) -> Callable[[int], None]:
        """The evaluation of what lies in these tensors, chunk by chunk; always of all slots."""
        chunks = [self._bind(_EVALUATION, chunk) for chunk in inputs]

        def evaluate(num_slots: int) -> None:
            for run in chunks:
                run(1)

        return evaluate

    def _bind(self, name: str, inputs: Mapping[str, Tensor]) -> Callable[[int], None]:
        tensors = list(inputs.values())
        if self._kernels is not None:
            return CompiledModel(self._kernels, self._folder / f"{name}.so", tensors).run
        run = self._loaders[name].run

        def repeat(count: int) -> None:
            for _ in range(count):
                run(tensors)

        return repeat


@dataclass(frozen=True)
class Job:
    """A program to compile: the training step of a model, and the evaluation that goes with it.

    Attributes:
        is_beyond_cache: whether the data set lies in memory rather than in a CPU's cache.
        threads: of a CPU device; 0 elsewhere.
    """

    model: Model
    loss: str
    family: Family
    drops: bool
    clips: bool
    dtype: str
    is_beyond_cache: bool
    device_type: str
    threads: int
    augments: tuple[Augmentation, ...] = ()
    regularises: tuple[Regulariser, ...] = ()

    @classmethod
    def of(cls, spec: StepSpec, data: DeviceData, threads: int) -> Job:
        """The program for packs of this step over these data."""
        return cls(
            spec.model,
            spec.loss,
            spec.family,
            spec.drops,
            spec.clips,
            spec.dtype,
            _is_beyond_cache(data),
            data.device.type,
            threads if data.device.type == "cpu" else 0,
            spec.augments,
            spec.regularises,
        )

    @property
    def name(self) -> str:
        """The name of the program's folder: a hash of the job, this machine and this engine."""
        return digest(self._as_dict(), self.device_type)

    def compile(self, folder: Path, scratch: Path) -> None:
        """Compile the program here and now; the folder appears whole or not at all.

        Args:
            scratch: a folder for drafts on the same file system.
        """
        device = torch.device(self.device_type)
        if self.threads:
            torch.set_num_threads(self.threads)
        loss = LOSSES[self.loss]
        data = DeviceData(
            train=self._blank(5 * _ROWS - 1, device),
            validation=self._blank(_ROWS, device),
            test=self._blank(1, device),
            targets=Targets(loss.targets, self.model.num_outputs, 0.0, 0.0),
            dtype=getattr(torch, self.dtype),
            fingerprint="blank",
        )
        spec = StepSpec(
            model=self.model,
            num_samples=data.train.num_samples,
            batch_size=_ROWS,
            family=self.family,
            drops=self.drops,
            clips=self.clips,
            dtype=self.dtype,
            loss=self.loss,
            augments=self.augments,
            regularises=self.regularises,
        )
        step_inputs = PackMemory(spec, _SLOTS, data).inputs()
        evaluation_inputs = EvaluationMemory(
            self.model, data.validation, _SLOTS, data.dtype
        ).inputs()[0]
        step = TracedStep(spec, is_beyond_cache=self.is_beyond_cache)
        made = Path(tempfile.mkdtemp(dir=scratch))
        try:
            settings = self.model.compiler_settings
            _compile(step, step_inputs, _STEP_SIZES, "K", made, _STEP, settings)
            _compile(
                TracedEvaluation(self.model, loss),
                evaluation_inputs,
                _EVALUATION_SIZES,
                "E",
                made,
                _EVALUATION,
                settings,
            )
            os.rename(made, folder)
        except OSError:
            if not folder.exists():  # another process was faster
                raise
        finally:
            shutil.rmtree(made, ignore_errors=True)

    @classmethod
    def from_json(cls, text: str) -> Job:
        """The job that `as_json` wrote down."""
        data = json.loads(text)
        kinds = {name: tuple(data[name]) for name in ("augments", "regularises")}
        return cls(**{**data, **kinds, "model": model_from_dict(data["model"])})

    def as_json(self) -> str:
        """The job for another process; see `from_json`."""
        return json.dumps(self._as_dict())

    def _as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "model": self.model.as_dict()}

    def _blank(self, num_rows: int, device: torch.device) -> Split:
        dtype = getattr(torch, self.dtype)
        x_dtype = torch.int64 if self.model.takes_ids else dtype
        if LOSSES[self.loss].targets == "classes":
            y = torch.zeros(num_rows, dtype=torch.int64, device=device)
        else:
            y = torch.zeros(num_rows, self.model.num_outputs, dtype=dtype, device=device)
        x = torch.zeros(num_rows, *self.model.sample_shape, dtype=x_dtype, device=device)
        return Split(x, y)


def _is_beyond_cache(data: DeviceData) -> bool:
    """Whether rows of numbers come from memory; rows of ids are few bytes."""
    x = data.train.x
    return data.device.type == "cpu" and not data.are_ids and x.numel() >= _BEYOND_CACHE


def _compile(
    module: torch.nn.Module,
    inputs: Mapping[str, Tensor],
    sizes: Mapping[str, Sequence[str]],
    slots: str,
    folder: Path,
    name: str,
    settings: dict[str, Any],
) -> None:
    """Export and compile one function of tensors by name.

    Args:
        sizes: by input, the names of its dimensions; those that are upper case vary.
        slots: the name of the first dimension of all other inputs.
        name: of the file in the folder.
    """
    # Of the same shapes and strides, but no two of one storage: what the inputs are views of is
    # none of the program's business.
    example = {
        name: torch.empty_strided(t.shape, t.stride(), dtype=t.dtype, device=t.device).zero_()
        for name, t in inputs.items()
    }
    dims = {name: Dim(name, min=1) for name in {*"".join(map("".join, sizes.values())), slots}}
    shapes = {
        name: {
            i: dims[size]
            for i, size in enumerate(sizes.get(name, (slots,)))
            if size.isupper() and tensor.shape[i] > 0
        }
        for name, tensor in example.items()
    }
    # Otherwise a size of 1 counts as a case of its own, and the program as one for 2 and more.
    with export_config.patch(backed_size_oblivious=True):  # type: ignore[attr-defined]
        program = torch.export.export(module, (example,), dynamic_shapes=(shapes,), strict=False)
    package = folder / f"{name}.pt2"
    torch._inductor.aoti_compile_and_package(
        program, package_path=str(package), inductor_configs=settings
    )
    if next(iter(example.values())).device.type == "cpu":
        # Of a CPU's package only the library is of use.
        with zipfile.ZipFile(package) as archive:
            (library,) = (member for member in archive.namelist() if member.endswith(".so"))
            (folder / f"{name}.so").write_bytes(archive.read(library))
        package.unlink()


def digest(data: object, device_type: str) -> str:
    """A name for what follows from plain JSON data, this machine and this engine."""
    text = json.dumps([data, *_surroundings(device_type)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:40]


@cache
def _surroundings(device_type: str) -> list[str]:
    """What else a program depends on."""
    sources = [path.read_bytes() for path in reachable([__name__]).values()]
    digest = hashlib.sha256(b"".join(sources)).hexdigest()
    kind = processor.instructions() if device_type == "cpu" else torch.cuda.get_device_name()
    return [str(torch.__version__), kind, digest]

"""Compiled programs: ahead of time, in a process of their own, and kept for every later process.

`torch.export` takes step and evaluation as they stand in `step` and `evaluation`, AOTInductor makes
native libraries of them, and calling those costs neither guards nor the interpreter: 25 µs for a
whole step of a small model, where the eager one takes 150.  One program serves every width, batch
size and number of steps and samples; of a model whose operations hold sizes as numbers, one width
and batch size.  A folder holds one program; its name is a hash of all that went into it, so a
program of another torch, processor or version of this engine is never taken for it.  CPUs alone
have them, see docs/decisions/0044.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import torch
import torch.fx.experimental._config as export_config
from torch import Tensor
from torch.export import Dim

from ridgeline.search.engine import processor
from ridgeline.search.engine.alignment import round_up
from ridgeline.search.engine.batch import Batch, blank_batch
from ridgeline.search.engine.config import Augmentation, Regulariser
from ridgeline.search.engine.data import DeviceData, Split
from ridgeline.search.engine.evaluation import EvaluationMemory, TracedEvaluation, slots_at_once
from ridgeline.search.engine.layout import Stacks
from ridgeline.search.engine.losses import LOSSES, Targets
from ridgeline.search.engine.memory import PackMemory
from ridgeline.search.engine.models.base import Model
from ridgeline.search.engine.models.registry import model_from_dict
from ridgeline.search.engine.native import MAX_INPUTS, BoundUpdate, CompiledModel, Kernels
from ridgeline.search.engine.native_steps import NativeStep, batch_arguments
from ridgeline.search.engine.sources import reachable
from ridgeline.search.engine.spec import Family, StepSpec
from ridgeline.search.engine.step import Terms, TracedStep, stretches

_STEP, _EVALUATION = "step", "evaluation"

_SLOTS, _ROWS = 8, 64
"""Of the example that a program is compiled from; the compiler takes sizes near them as likely."""

_STEP_SIZES = {
    "batch.x_KB": "KB",
    "batch.y_KB": "KB",
    "batch.invalid_KB": "KB",
    "rates": "KSc",
    "constants": "Kc",
    "dropout_keys": "KS",
    "dropout_thresholds": "Kc",
    "dropout_counters": "uB",
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

_CALLS_PYTHON = b"aoti_torch_proxy_executor_call_function("
"""In the source of a program that needs the loader of a package; ours are called without one."""

_FIXED_EVALUATION_ROWS = 256
"""About how many at most a program of fixed sizes evaluates at once: their activations then stay
within the cache."""


@dataclass(frozen=True)
class FixedSizes:
    """The sizes of a program that is for no others.

    Attributes:
        width: slots of a pack.
        batch_size: of a step, those rows not counted that only pad the batch.
        evaluation_rows, evaluation_slots: that are evaluated at once.
    """

    width: int
    batch_size: int
    evaluation_rows: int
    evaluation_slots: int


class CompiledProgram:
    """A program from its folder.

    Args:
        kernels: which call it, and update the parameters where it does not.
        job: that it was made for.

    Raises:
        OSError, RuntimeError: there is none, or not one for this machine.
    """

    def __init__(self, folder: Path, kernels: Kernels, job: Job) -> None:
        self._folder, self._kernels = folder, kernels
        self.sizes, self.updates = job.sizes, job.updates
        for name in (_STEP, _EVALUATION):
            ctypes.CDLL(str(folder / f"{name}.so"))

    def bind_step(
        self, spec: StepSpec, memory: PackMemory, gradients: Stacks | None
    ) -> Callable[[Terms, int], None]:
        """So many steps of a pack's tensors.

        Args:
            gradients: where the update is the kernels', laid out as the parameters; the gaps
                between them must hold zeros.
        """
        update: BoundUpdate | None = None
        outputs: list[int] = []
        inputs, layout = memory.inputs(), memory.layout
        if gradients is not None:
            regions = stretches(memory, gradients)
            update = NativeStep(self._kernels, spec, inputs, regions).bound_update
            outputs = [update.gradients[layout.penalised.index(name)] for name in layout.filling]
        batch = blank_batch(inputs)
        fetching = batch_arguments(inputs, batch)
        tensors = [*step_inputs(memory, batch, gradients).values()]
        library = self._folder / f"{_STEP}.so"
        run = CompiledModel(self._kernels, library, tensors, fetching, update, outputs).run
        return lambda terms, count: run(count)

    def bind_evaluation(self, inputs: Sequence[Mapping[str, Tensor]]) -> Callable[[int], None]:
        """The evaluation of what lies in these tensors, chunk by chunk; always of all slots."""
        library = self._folder / f"{_EVALUATION}.so"
        chunks = [CompiledModel(self._kernels, library, [*its.values()]) for its in inputs]

        def evaluate(num_slots: int) -> None:
            for chunk in chunks:
                chunk.run(1)

        return evaluate


@dataclass(frozen=True)
class Job:
    """A program to compile: the training step of a model, and the evaluation that goes with it.

    Attributes:
        threads: of the CPU.
        sizes: None where one program is for all.
    """

    model: Model
    loss: str
    family: Family
    drops: bool
    clips: bool
    dtype: str
    threads: int
    augments: tuple[Augmentation, ...] = ()
    regularises: tuple[Regulariser, ...] = ()
    sizes: FixedSizes | None = None

    @classmethod
    def of(cls, spec: StepSpec, data: DeviceData, threads: int, width: int = 1) -> Job:
        """The program for packs of this step over these data.

        Args:
            width: of the packs, where a program of this model has one.
        """
        sizes: FixedSizes | None = None
        if spec.model.fixes_sizes:
            num_samples = data.validation.num_samples
            num_slots = slots_at_once(spec.model, num_samples, width, data.device)
            sizes = FixedSizes(width, spec.batch_size, _fixed_rows(num_samples), num_slots)
        return cls(
            spec.model,
            spec.loss,
            spec.family,
            spec.drops,
            spec.clips,
            spec.dtype,
            threads,
            spec.augments,
            spec.regularises,
            sizes,
        )

    @property
    def updates(self) -> bool:
        """Whether a step updates the parameters, rather than leave that to the native kernels.

        Those are faster, and compute on one thread.
        """
        return self.threads > 1

    @property
    def name(self) -> str:
        """The name of the program's folder: a hash of the job, this machine and this engine."""
        return _name_of(self, self.model.source)

    def compile(self, folder: Path, scratch: Path) -> None:
        """Compile the program here and now; the folder appears whole or not at all.

        Args:
            scratch: a folder for drafts on the same file system.
        """
        torch.set_num_threads(self.threads)
        loss = LOSSES[self.loss]
        sizes = self.sizes or FixedSizes(_SLOTS, _ROWS, _ROWS, _SLOTS)
        data = DeviceData(
            train=self._blank(5 * sizes.batch_size - 1),
            validation=self._blank(sizes.evaluation_rows),
            test=self._blank(1),
            targets=Targets(loss.targets, self.model.num_outputs, 0.0, 0.0),
            dtype=getattr(torch, self.dtype),
            fingerprint="blank",
        )
        spec = StepSpec(
            model=self.model,
            num_samples=data.train.num_samples,
            batch_size=sizes.batch_size,
            family=self.family,
            drops=self.drops,
            clips=self.clips,
            dtype=self.dtype,
            loss=self.loss,
            augments=self.augments,
            regularises=self.regularises,
        )
        memory, gradients = PackMemory(spec, sizes.width, data), None
        if not self.updates:
            gradients = Stacks(memory.layout, sizes.width, device=data.device, dtype=data.dtype)
        inputs = step_inputs(memory, blank_batch(memory.inputs()), gradients)
        (evaluation_inputs,) = EvaluationMemory(
            self.model,
            data.validation,
            sizes.evaluation_slots,
            data.dtype,
            sizes.evaluation_rows,
        ).inputs()
        step = TracedStep(spec, updates=self.updates)
        evaluation = TracedEvaluation(self.model, loss)
        if self.sizes is not None:
            # Traced for the first time here, graphs of the model are at hand where `torch.export`
            # traces all: it cannot have another tracing inside its own.
            step(inputs)
            evaluation(evaluation_inputs)
        made = Path(tempfile.mkdtemp(dir=scratch))
        try:
            for name, module, tensors, dimensions, slots in (
                (_STEP, step, inputs, _STEP_SIZES, "K"),
                (_EVALUATION, evaluation, evaluation_inputs, _EVALUATION_SIZES, "E"),
            ):
                varying = {slots, *"".join(map("".join, dimensions.values()))}
                if self.sizes is not None:
                    varying -= {"K", "B", "E"}
                example = _example(tensors)
                shapes = _shapes(example, dimensions, slots, varying)
                _compile(module, example, shapes, made, name, self.model.compiler_settings)
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
        given: dict[str, Any] = {
            **{name: tuple(data[name]) for name in ("augments", "regularises")},
            "model": model_from_dict(data["model"]),
        }
        if data["sizes"] is not None:
            given["sizes"] = FixedSizes(**data["sizes"])
        return cls(**{**data, **given})

    def as_json(self) -> str:
        """The job for another process; see `from_json`."""
        return json.dumps(self._as_dict())

    def _as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "model": self.model.as_dict()}

    def _blank(self, num_rows: int) -> Split:
        dtype = getattr(torch, self.dtype)
        x_dtype = torch.int64 if self.model.takes_ids else dtype
        if LOSSES[self.loss].targets == "classes":
            y = torch.zeros(num_rows, dtype=torch.int64)
        else:
            y = torch.zeros(num_rows, self.model.num_outputs, dtype=dtype)
        x = torch.zeros(num_rows, *self.model.sample_shape, dtype=x_dtype)
        return Split(x, y)


def step_inputs(memory: PackMemory, batch: Batch, gradients: Stacks | None) -> dict[str, Tensor]:
    """What a program's step reads and writes.

    Args:
        batch: in place of the tables that it comes from.
        gradients: for a step that ends with them, and has nothing of the update; None otherwise.
            Those that fill their stretch it gives, and does not write.
    """
    inputs = memory.inputs()
    for name in ("x", "y", "samples", "invalid", "num_valid"):
        del inputs[name]
    inputs |= {f"batch.{name}": its for name, its in batch._asdict().items()}
    if gradients is None:
        return inputs
    of_update = ("rates", *(f"{moment}." for moment in memory.moments))
    needed = {name: its for name, its in inputs.items() if not name.startswith(of_update)}
    given, views = memory.layout.filling, gradients.views()
    return needed | {f"gradients.{name}": v for name, v in views.items() if name not in given}


def _fixed_rows(num_samples: int) -> int:
    """Of chunks as equal as can be, so that few rows only pad the last one."""
    num_chunks = -(-num_samples // _FIXED_EVALUATION_ROWS)
    return round_up(-(-num_samples // num_chunks))


def _example(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Of the same shapes and strides, but no two of one storage.

    What the inputs are views of is none of a program's business.
    """
    return {
        name: torch.empty_strided(t.shape, t.stride(), dtype=t.dtype, device=t.device).zero_()
        for name, t in inputs.items()
    }


def _shapes(
    example: Mapping[str, Tensor],
    dimensions: Mapping[str, Sequence[str]],
    slots: str,
    varying: Iterable[str],
) -> dict[str, dict[int, Any]]:
    """Which dimensions of a program's inputs vary, as `torch.export` takes it.

    Args:
        dimensions: by input, the names of its dimensions; those that are upper case may vary.
        slots: the name of the first dimension of all other inputs.
        varying: the names of those that do.
    """
    dims = {name: Dim(name, min=1) for name in varying if name.isupper()}
    return {
        name: {
            i: dims[size]
            for i, size in enumerate(dimensions.get(name, (slots,)))
            if size in dims and tensor.shape[i] > 0
        }
        for name, tensor in example.items()
    }


def _compile(
    module: torch.nn.Module,
    example: dict[str, Tensor],
    shapes: dict[str, dict[int, Any]],
    folder: Path,
    name: str,
    settings: dict[str, Any],
) -> None:
    """Export and compile one function of tensors by name.

    Args:
        name: of the file in the folder.

    Raises:
        RuntimeError: it has more inputs than a program can be called with, or operations that
            compiled programs cannot call.
    """
    if len(example) > MAX_INPUTS:
        raise RuntimeError(f"{len(example)} tensors are more than a program can have")
    # Otherwise a size of 1 counts as a case of its own, and the program as one for 2 and more.
    with export_config.patch(backed_size_oblivious=True):  # type: ignore[attr-defined]
        program = torch.export.export(module, (example,), dynamic_shapes=(shapes,), strict=False)
    package = folder / f"{name}.pt2"
    torch._inductor.aoti_compile_and_package(
        program, package_path=str(package), inductor_configs=settings
    )
    with zipfile.ZipFile(package) as archive:  # of which only the library is of use
        members = archive.namelist()
        sources = [archive.read(m) for m in members if m.endswith(".wrapper.cpp")]
        if any(_CALLS_PYTHON in source for source in sources):
            raise RuntimeError("some of the operations can only be called through Python")
        (library,) = (member for member in members if member.endswith(".so"))
        (folder / f"{name}.so").write_bytes(archive.read(library))
    package.unlink()


@lru_cache(maxsize=1_024)  # lanes look for the same few programs at every turn
def _name_of(job: Job, source: str) -> str:
    return digest([job._as_dict(), source], "cpu")


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

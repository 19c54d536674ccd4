"""Compiled programs: ahead of time, in a process of their own, and kept for every later process.

`torch.export` takes step and evaluation as they stand in `step` and `evaluation`, AOTInductor makes
native libraries of them, and calling those costs neither guards nor the interpreter: 25 µs for a
whole step of a small model, where the eager one takes 150.  A folder holds one program; its name is
a hash of all that went into it, so a program of another torch, processor or version of this engine
is never taken for it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from search.engine import processor
from search.engine.data import DeviceData, Split
from search.engine.evaluation import EvaluationMemory, TracedEvaluation, slots_at_once
from search.engine.memory import PackMemory
from search.engine.spec import StepSpec
from search.engine.step import Terms, TracedStep

INDUCTOR_CACHE = "inductor"
"""The folder, among the programs, of what the compiler can use again."""

_STEP, _EVALUATION = "step.pt2", "evaluation.pt2"

_SOURCES = (
    "compiled",
    "evaluation",
    "layers",
    "layout",
    "memory",
    "optim",
    "penalty",
    "rng",
    "spec",
    "step",
)
"""The modules that a program is made of."""


class CompiledProgram:
    """A program from its folder.

    Raises:
        RuntimeError: there is none, or not one for this machine.
    """

    def __init__(self, folder: Path) -> None:
        self._step = torch._inductor.aoti_load_package(str(folder / _STEP)).loader
        self._evaluation = torch._inductor.aoti_load_package(str(folder / _EVALUATION)).loader

    def bind_step(self, inputs: Mapping[str, Tensor]) -> Callable[[Terms], None]:
        """The step over these tensors, which must be laid out as those it was compiled for."""
        tensors, run = list(inputs.values()), self._step.run

        def step(terms: Terms) -> None:
            run(tensors)

        return step

    def bind_evaluation(self, inputs: Sequence[Mapping[str, Tensor]]) -> Callable[[], None]:
        """The evaluation of what lies in these tensors, chunk by chunk."""
        chunks, run = [list(chunk.values()) for chunk in inputs], self._evaluation.run

        def evaluate() -> None:
            for tensors in chunks:
                run(tensors)

        return evaluate


@dataclass(frozen=True)
class Job:
    """A program to compile: a step of some width, and the evaluation that goes with it.

    Attributes:
        num_validation: rows of the validation part.
        threads: of a CPU device; 0 elsewhere.
    """

    spec: StepSpec
    num_validation: int
    width: int
    device_type: str
    threads: int

    @classmethod
    def of(cls, spec: StepSpec, width: int, data: DeviceData) -> Job:
        """The program for a pack here and now."""
        kind = data.device.type
        threads = torch.get_num_threads() if kind == "cpu" else 0
        return cls(spec, data.validation.num_samples, width, kind, threads)

    @property
    def name(self) -> str:
        """The name of the program's folder: a hash of the job, this machine and this engine."""
        text = json.dumps([self._as_dict(), *_surroundings(self.device_type)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:40]

    def compile(self, folder: Path, scratch: Path) -> None:
        """Compile the program here and now; the folder appears whole or not at all.

        Args:
            scratch: a folder for drafts on the same file system.
        """
        device = torch.device(self.device_type)
        if self.threads:
            torch.set_num_threads(self.threads)
        shape, num_rows = self.spec.shape, self.spec.num_samples
        data = DeviceData(
            train=self._blank(num_rows, device),
            validation=self._blank(self.num_validation, device),
            test=self._blank(1, device),
            num_classes=shape.num_classes,
        )
        step_inputs = PackMemory(self.spec, self.width, data).inputs()
        num_slots = slots_at_once(shape, self.num_validation, self.width)
        evaluation_inputs = EvaluationMemory(shape, data.validation, num_slots).inputs()[0]
        made = Path(tempfile.mkdtemp(dir=scratch))
        try:
            # Inductor of torch 2.13 fails with a KeyError (`get_read_expr`) on what it fuses of a
            # batch norm, unless values that are read are written out first.
            settings = {"realize_reads_threshold": 1} if shape.batch_norm else {}
            _compile(TracedStep(self.spec), step_inputs, made / _STEP, settings)
            _compile(TracedEvaluation(shape), evaluation_inputs, made / _EVALUATION, settings)
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
        return cls(**{**data, "spec": StepSpec.from_dict(data["spec"])})

    def _as_dict(self) -> dict[str, Any]:
        return {**vars(self), "spec": self.spec.as_dict()}

    def as_json(self) -> str:
        """The job for another process; see `from_json`."""
        return json.dumps(self._as_dict())

    def _blank(self, num_rows: int, device: torch.device) -> Split:
        return Split(
            torch.zeros(
                num_rows,
                self.spec.shape.num_features,
                dtype=getattr(torch, self.spec.dtype),
                device=device,
            ),
            torch.zeros(num_rows, dtype=torch.int64, device=device),
        )


class Compilation:
    """The making of a program in a process of its own, which ends when this one does.

    What the compiler writes on its way lies beside the program, in a folder that goes with it.

    Raises:
        OSError: the process, or room for its files, could not be had.
    """

    def __init__(self, job: Job, folder: Path) -> None:
        self._scratch = tempfile.mkdtemp(prefix="compiling-", dir=folder.parent)
        self._log = Path(self._scratch, "log")
        command = [sys.executable, "-m", "search.engine.compiling"]
        # The compiler's own cache, of compiled headers above all, halves the time of the next
        # program; elsewhere others might write to it.
        places = {
            "TMPDIR": self._scratch,
            "TRITON_CACHE_DIR": self._scratch,
            "TORCHINDUCTOR_CACHE_DIR": str(folder.parent / INDUCTOR_CACHE),
        }
        try:
            with self._log.open("wb") as log:
                self._process = subprocess.Popen(
                    [*command, job.as_json(), str(folder), self._scratch],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,
                    stderr=log,
                    process_group=0,
                    cwd=Path(__file__).parents[2],  # where this very engine is found
                    env=os.environ | places,
                )
        except OSError:
            shutil.rmtree(self._scratch, ignore_errors=True)
            raise

    @property
    def has_ended(self) -> bool:
        """Whether `finish` returns at once."""
        return self._process.poll() is not None

    def finish(self) -> None:
        """Wait for the program.

        Raises:
            RuntimeError: with what the compiler said last, there is none.
        """
        status = self._process.wait()
        assert self._process.stdin is not None
        self._process.stdin.close()
        lines = []
        if status != 0:
            with suppress(OSError):
                lines = self._log.read_text(errors="replace").splitlines()
        shutil.rmtree(self._scratch, ignore_errors=True)
        if status != 0:
            raise RuntimeError(lines[-1] if lines else f"the compiler ended with {status}")


def _compile(
    module: torch.nn.Module, inputs: Mapping[str, Tensor], path: Path, settings: dict[str, Any]
) -> None:
    # Of the same shapes and strides, but no two of one storage: what the inputs are views of is
    # none of the program's business.
    example = {
        name: torch.empty_strided(t.shape, t.stride(), dtype=t.dtype, device=t.device).zero_()
        for name, t in inputs.items()
    }
    program = torch.export.export(module, (example,), strict=False)
    torch._inductor.aoti_compile_and_package(
        program, package_path=str(path), inductor_configs=settings
    )


@cache
def _surroundings(device_type: str) -> list[str]:
    """What else a program depends on."""
    sources = [Path(__file__).with_name(f"{name}.py").read_bytes() for name in _SOURCES]
    digest = hashlib.sha256(b"".join(sources)).hexdigest()
    kind = processor.instructions() if device_type == "cpu" else torch.cuda.get_device_name()
    return [str(torch.__version__), kind, digest]

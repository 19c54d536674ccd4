"""What the engine computes, recorded to the operation and to the bit, to tell when that changes.

`python -m tests.engine.numerics` writes the record down anew, in `numerics.json`.

A hash of the sources would change with every comment, and bits alone can be compared only on the
kind of processor that they come from.  So both of these are recorded:

* `operations`: hashes of torch's operations behind a run's results, with their order as far as one
  feeds another, the layouts of their operands and their constants; the same on every machine.  Of
  native code, whose operations cannot be seen, the source without comments.
* `bits`: by processor, hashes of the results of a few runs.
"""

from __future__ import annotations

import ast
import hashlib
import json
import re
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ridgeline.search.engine import (
    DeviceData,
    Mlp,
    Pack,
    RunConfig,
    native,
    native_steps,
    processor,
)
from ridgeline.search.engine.batch import Batches
from ridgeline.search.engine.compiled import step_inputs
from ridgeline.search.engine.evaluation import EvaluationMemory, TracedEvaluation, rows_at_once
from ridgeline.search.engine.layout import Stacks, layouts
from ridgeline.search.engine.losses import LOSSES
from ridgeline.search.engine.memory import PackMemory
from ridgeline.search.engine.models import mlp_native
from ridgeline.search.engine.models.base import Model
from ridgeline.search.engine.native import Kernels
from ridgeline.search.engine.program import NUMERICS
from ridgeline.search.engine.step import TracedStep
from tests.engine.models.toy import Toy
from tests.engine.sets import CPU, config, step_spec

RECORD = Path(__file__).with_name("numerics.json")

MODELS: dict[str, tuple[Model, dict[str, Any]]] = {
    "adam": (
        Mlp(13, (33, 7), 3),
        {"dropout": 0.3, "l1": 0.01, "l2": 0.02, "weight_decay": 0.1, "schedule": "one_cycle"},
    ),
    "proximal": (
        Mlp(13, (9,), 3, activation="tanh"),
        {"l1": 0.02, "l1_update": "proximal", "penalize": "all", "warmup": 0.2},
    ),
    "sgd-norm": (
        Mlp(13, (33, 7), 3, activation="tanh", batch_norm=True),
        {
            "optimizer": "sgd",
            "momentum": 0.9,
            "nesterov": True,
            "clip_norm": 0.1,
            "l2": 0.02,
            "schedule": "cosine",
        },
    ),
    "regularised": (
        Mlp(13, (33, 7), 3),
        {
            "max_norm": 0.6,
            "input_dropout": 0.2,
            "label_smoothing": 0.1,
            "gradient_noise": 0.01,
            "l2": 0.02,
            "clip_norm": 0.1,
        },
    ),
    "augmented": (
        Toy((1, 4, 5), 3),
        {
            "shift": 1,
            "flip": 0.5,
            "rotation": 15,
            "cutout": 0.2,
            "brightness": 0.2,
            "contrast": 0.3,
            "input_noise": 0.1,
            "mixup": 0.2,
        },
    ),
}
_WIDTH = 3


class _Recorder(TorchDispatchMode):
    """Gives each piece of memory a hash of the operations behind what it holds."""

    def __init__(self) -> None:
        super().__init__()
        self._hashes: dict[int, str] = {}
        self._seen: list[Any] = []  # keeps memory from being used again

    def hash_of(self, tensor: Tensor) -> str:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key not in self._hashes:
            self._seen.append(storage)
            whole = torch.empty(0, dtype=tensor.dtype).set_(storage)
            # To nine digits: cosines and powers differ in the last ones from library to library.
            self._hashes[key] = _digest("given", [f"{value:.9g}" for value in whole.tolist()])
        return self._hashes[key]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        schema = func._schema
        given = {a.name: v for a, v in zip(schema.arguments, args, strict=False)} | kwargs
        described = {name: self._describe(value) for name, value in given.items()}
        operation = _digest(str(func), described)
        written = [
            given[a.name]
            for a in schema.arguments
            if a.alias_info is not None and a.alias_info.is_write and a.name in given
        ]
        known = {t.untyped_storage()._cdata for t in _tensors(list(given.values()))}
        result = func(*args, **kwargs)
        for tensor in _tensors(written):
            self._hashes[tensor.untyped_storage()._cdata] = _digest(operation)
        for i, tensor in enumerate(_tensors([result])):
            storage = tensor.untyped_storage()
            if storage._cdata not in known:  # otherwise it is a view, or what was written
                self._seen.append(storage)
                self._hashes[storage._cdata] = _digest(operation, i)
        return result

    def _describe(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            layout = [list(value.shape), list(value.stride()), value.storage_offset()]
            return [self.hash_of(value), str(value.dtype), layout]
        if isinstance(value, list | tuple):
            return [self._describe(one) for one in value]
        return repr(value)


def operations() -> dict[str, str]:
    """Hashes of what each form computes."""
    recorded: dict[str, str] = {}
    for name, (model, changes) in MODELS.items():
        layout, _ = layouts(model)  # which are remembered: always from before, and so given
        layout.initial_rows([10**6], torch.device("cpu"), torch.float32)  # and so is its range
        recorded[f"eager {name}"] = _recorded(partial(_step_eagerly, model, _runs(changes)))
        traced = _recorded(partial(_step_as_traced, model, _runs(changes)[0]))
        recorded[f"compiled {name}"] = _digest(traced, model.compiler_settings)
    sources = [_statements(Path(module.__file__ or "")) for module in (mlp_native, native_steps)]
    kernels = _without_comments(native._SOURCE.read_text())
    recorded["native"] = _digest(kernels, native._FLAGS, native._macros(), sources)
    return recorded


def _step_eagerly(model: Model, runs: list[RunConfig]) -> list[Tensor]:
    data = _data(model, torch.float32)
    pack = Pack(step_spec(runs[0], model, data), data, width=_WIDTH)
    for slot in (0, 2):  # a slot without a run is frozen
        pack.load(slot, runs[slot])
    pack.tick(pack.ticks_to_epoch_end)
    evaluated = pack._evaluation.validate([0, 2], torch.tensor([0, 2]))
    return [*pack._memory.inputs().values(), *evaluated, pack.test([pack.weights(2)])[0]]


def _step_as_traced(model: Model, run: RunConfig) -> list[Tensor]:
    data = _data(model, torch.float32)
    spec = step_spec(run, model, data).regularising(run.regularisers)
    memory = PackMemory(spec, _WIDTH, data)
    gradients = Stacks(memory.layout, _WIDTH, device=data.device, dtype=data.dtype)
    batches = Batches(memory.inputs())
    for its in (None, gradients):
        inputs = step_inputs(memory, batches(padding=True), its)
        TracedStep(spec, updates=its is None)(inputs)
    num_rows = rows_at_once(data.validation.num_samples)
    (chunk,) = EvaluationMemory(model, data.validation, _WIDTH, data.dtype, num_rows).inputs()
    TracedEvaluation(model, LOSSES[spec.loss])(chunk)
    return [*inputs.values(), *chunk.values()]


def bits(kernels: Kernels) -> dict[str, str]:
    """Hashes of what runs come to on this machine."""
    found: dict[str, str] = {}
    for name, (model, changes) in MODELS.items():
        for dtype in (torch.float32, torch.float64):
            data, runs = _data(model, dtype), _runs(changes)
            for form, program in {"eager": None, "native": kernels}.items():
                pack = Pack(step_spec(runs[0], model, data), data, width=_WIDTH, kernels=program)
                for slot in (0, 2):
                    pack.load(slot, runs[slot])
                metrics = []
                for _ in range(runs[0].epochs):
                    pack.tick(pack.ticks_to_epoch_end)
                    metrics.append(pack.epoch_metrics([0, 2]))
                state = [row.numpy().tobytes().hex() for row in pack.state(2).tensors.values()]
                tested = pack.test([pack.weights(2)])[0].tolist()
                key = f"{form} {name} {dtype}".replace("torch.", "")
                found[key] = _digest(state, repr(metrics), repr(tested))
    return found


def machine() -> str:
    """What bits depend on, beside the engine."""
    return _digest(str(torch.__version__), processor.kind(), processor.instructions())


def read() -> dict[str, Any]:
    record: dict[str, Any] = json.loads(RECORD.read_text())
    return record


def write(kernels: Kernels) -> None:
    """Write the record of this version of the numerics.

    Raises:
        RuntimeError: bits have changed, and the version has not.
    """
    old = read() if RECORD.exists() else {"numerics": 0, "bits": {}}
    now = bits(kernels)
    machines = dict(old["bits"]) if old["numerics"] == NUMERICS else {}
    before = machines.get(machine(), {})
    if changed := [name for name in now if before.get(name, now[name]) != now[name]]:
        raise RuntimeError(
            f"results have other bits than before ({', '.join(changed)}): raise NUMERICS in "
            "search/engine/program.py first"
        )
    record = {
        "numerics": NUMERICS,
        "torch": str(torch.__version__).partition("+")[0],
        "operations": operations(),
        "bits": {**machines, machine(): now},
    }
    RECORD.write_text(json.dumps(record, indent=2) + "\n")


def _data(model: Model, dtype: torch.dtype) -> DeviceData:
    """Eighths, which every machine draws alike."""
    generator = np.random.default_rng(0)

    def part(num_samples: int) -> tuple[Any, Any]:
        y = generator.integers(0, 3, num_samples)
        shape = (num_samples, *model.sample_shape)
        return (generator.integers(-8, 9, shape) + y.reshape(-1, *[1] * (len(shape) - 1))) / 8, y

    return DeviceData.from_arrays(
        part(47), part(57), part(43), num_classes=3, device=CPU, dtype=dtype
    )


def _runs(changes: dict[str, Any]) -> list[RunConfig]:
    first = config(batch_size=23, epochs=2, **changes)
    return [replace(first, seed=seed, learning_rate=0.01 / (seed + 1)) for seed in range(_WIDTH)]


def _recorded(compute: Callable[[], list[Tensor]]) -> str:
    with _Recorder() as recorder:
        results = compute()
    return _digest([recorder.hash_of(tensor) for tensor in results])


def _tensors(values: Iterable[Any]) -> list[Tensor]:
    found: list[Tensor] = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, list | tuple):
            found += _tensors(value)
    return found


def _digest(*parts: Any) -> str:
    text = json.dumps(parts, sort_keys=True, default=repr)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def _without_comments(source: str) -> str:
    return " ".join(re.sub(r"//[^\n]*", "", source).split())


def _statements(path: Path) -> list[str]:
    """The lines of a module but for texts that stand alone, comments and indentation."""
    lines = path.read_text().splitlines()
    for node in ast.walk(ast.parse(path.read_text())):
        is_text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if is_text and isinstance(node.value.value, str):
            for number in range(node.lineno, (node.end_lineno or node.lineno) + 1):
                lines[number - 1] = ""
    stripped = [line.strip() for line in lines]
    return [line for line in stripped if line and not line.startswith("#")]


if __name__ == "__main__":
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        found = native.kernels(Path(folder))
        assert found is not None, "the native form needs a C++ compiler"
        try:
            write(found)
        except RuntimeError as exc:
            sys.exit(str(exc))

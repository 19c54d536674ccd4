"""The library of native code for a CPU, and calls of compiled programs by it.

`kernels.cpp` is one source for every shape, width and batch size; `native_steps` calls its kernels.
Compiling it takes a second or two, once a machine; it is kept beside the compiled programs.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import shutil
import subprocess
import weakref
from collections.abc import Callable, Iterable, Sequence
from ctypes import Structure, byref, c_int32, c_int64, c_size_t, c_void_p
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ridgeline.search.engine import processor, rng
from ridgeline.search.engine.evaluation import NEAR_ZERO
from ridgeline.search.engine.memory import Constant, Rate
from ridgeline.search.engine.normal import NORMAL_BITS
from ridgeline.search.engine.optim import ADAM_BETAS, CLIP_EPSILON
from ridgeline.search.scratch import scratch_folder

_SOURCE = Path(__file__).with_name("kernels.cpp")

SCRATCH_PREFIX = "compiling-"
"""Of folders of drafts in the cache, which go with the process that made them."""

_COMPILER_SECONDS = 60.0
"""Past which the compiler hangs; it takes about one."""

# No -ffast-math: infinities and NaN tell that a run has diverged.
_FLAGS = ("-std=c++17", "-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math")

MAX_INPUTS = 1024
"""`kMaxInputs` of the source: of a compiled program."""

_log = logging.getLogger(__name__)


class Kernels:
    """The library of kernels.

    Raises:
        OSError: the file is not a library that this machine can load.
        AttributeError: it is not this library.
    """

    def __init__(self, library: Path) -> None:
        loaded = ctypes.CDLL(str(library))
        self.by_name = {
            f"{kind}_{dtype}": getattr(loaded, f"{kind}_{dtype}")
            for kind in ("adam", "sgd", "dropout", "train", "evaluate")
            for dtype in ("float32", "float64")
        }
        for name, function in self.by_name.items():
            function.restype = c_int32 if name.startswith(("train", "evaluate")) else None
        self.run_program = loaded.run_program
        self.run_program.argtypes = (c_void_p, c_int64)


@dataclass(frozen=True)
class BoundUpdate:
    """A kernel of an update and what it takes, which must stay where it is.

    Attributes:
        gradients: where in the arguments the addresses of gradients stand, by stretch.
    """

    function: Callable[..., None]
    arguments: Structure
    gradients: Sequence[int]


class _Program(Structure):
    _fields_ = (
        *((name, c_void_p) for name in ("run", "new_handle", "get_data", "delete_handle")),
        *((name, c_void_p) for name in ("container", "inputs")),
        ("num_inputs", c_int64),
        ("outputs", c_void_p),
        ("num_outputs", c_int64),
        *((name, c_void_p) for name in ("batch", "update", "update_arguments")),
    )


class CompiledModel:
    """What AOTInductor compiled for a CPU, bound to its inputs.

    torch's own way to call one keeps the interpreter's lock meanwhile, so that no two of them run
    at the same time.

    Args:
        library: of the model.
        inputs: in the order of the model's; their places and sizes must not change.
        batch: what the kernel takes that fetches a batch before each call of the model.
        update: is called after each call of the model.
        outputs: of each of the model's, where to leave the address of its numbers for the update.

    Raises:
        OSError, AttributeError: the file is no such library.
        RuntimeError: the model cannot be made.
    """

    def __init__(
        self,
        kernels: Kernels,
        library: Path,
        inputs: Sequence[Tensor],
        batch: Structure | None = None,
        update: BoundUpdate | None = None,
        outputs: Sequence[int] = (),
    ) -> None:
        assert max(len(inputs), len(outputs)) <= MAX_INPUTS
        self._run = kernels.run_program
        self._library = ctypes.CDLL(str(library))
        self._container = c_void_p()
        if self._library.AOTInductorModelContainerCreateWithDevice(
            byref(self._container), c_size_t(1), b"cpu", None
        ):
            raise RuntimeError(f"{library} holds no model")
        self._inputs = handles_of(inputs)
        self._outputs = (c_void_p * len(outputs))(*outputs)
        self._batch, self._update = batch, update
        torchs = torch_library()
        self._program = _Program(
            _address(self._library.AOTInductorModelContainerRunSingleThreaded),
            _address(torchs.aoti_torch_new_tensor_handle),
            _address(torchs.aoti_torch_get_data_ptr),
            _address(torchs.aoti_torch_delete_tensor_object),
            self._container,
            ctypes.addressof(self._inputs),
            len(inputs),
            ctypes.addressof(self._outputs),
            len(outputs),
            None if batch is None else ctypes.addressof(batch),
            None if update is None else _address(update.function),
            None if update is None else ctypes.addressof(update.arguments),
        )
        weakref.finalize(self, _delete, self._library, self._container, self._inputs)

    def run(self, count: int) -> None:
        """Call it so many times.

        Raises:
            MemoryError: a call failed: nothing else can run out once its inputs are bound.
        """
        if self._run(byref(self._program), count):
            raise MemoryError("a compiled program could not allocate its tensors; see the log")


def _address(function: Any) -> c_void_p:
    return ctypes.cast(function, c_void_p)


@cache
def torch_library() -> ctypes.CDLL:
    """torch's C interface, from the library that is loaded already."""
    return ctypes.CDLL(str(Path(torch.__file__).with_name("lib") / "libtorch_cpu.so"))


def handles_of(tensors: Sequence[Tensor]) -> ctypes.Array[c_void_p]:
    """The tensors as the C interface has them, until `_delete`."""
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = c_void_p, (ctypes.py_object, ctypes.c_char_p)
    capsules = torch._C._aoti.unsafe_alloc_void_ptrs_from_tensors(list(tensors))
    return (c_void_p * len(tensors))(*[pointer(capsule, None) for capsule in capsules])


def _delete(library: ctypes.CDLL, container: c_void_p, tensors: ctypes.Array[c_void_p]) -> None:
    library.AOTInductorModelContainerDelete(container)
    forget_handles(tensors)


def forget_handles(handles: Iterable[int | None]) -> None:
    for handle in handles:
        torch_library().aoti_torch_delete_tensor_object(c_void_p(handle))


def kernels(folder: Path) -> Kernels | None:
    """The library from a folder, compiled if it is not there; None where there is no compiler.

    Whoever may write to the folder decides what this process runs.
    """
    problem: Exception | None = None
    for _ in range(2):
        try:
            name = _name()
            if name is None:
                return None
            library = folder / name
            if problem is not None:
                library.unlink(missing_ok=True)  # a damaged one is compiled anew
            if not library.exists():
                _compile(library)
            return Kernels(library)
        except (OSError, subprocess.SubprocessError, AttributeError) as exc:
            problem = exc
    _log.warning("steps are slower, as their kernels could not be compiled: %s", problem)
    return None


@cache
def _name() -> str | None:
    """The file's name: a hash of all that the library is made from; None without a compiler."""
    compiler = _compiler()
    if compiler is None:
        return None
    version = subprocess.run(
        [compiler, "--version"], capture_output=True, check=False, timeout=_COMPILER_SECONDS
    ).stdout
    parts = [_SOURCE.read_bytes(), " ".join([*_FLAGS, *_macros()]).encode(), version]
    parts.append(processor.instructions().encode())
    return f"kernels-{hashlib.sha256(b'|'.join(parts)).hexdigest()[:40]}.so"


def _compiler() -> str | None:
    return shutil.which(os.environ.get("CXX") or "g++")


def _compile(library: Path) -> None:
    """Whole or not at all: other processes may do the same."""
    compiler = _compiler()
    assert compiler is not None
    with scratch_folder(SCRATCH_PREFIX, library.parent) as scratch:
        draft = scratch / library.name
        command = [compiler, *_FLAGS, *_macros(), "-fPIC", "-shared", str(_SOURCE), "-o"]
        subprocess.run(
            [*command, str(draft)],
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=_COMPILER_SECONDS,
            env=os.environ | {"TMPDIR": str(scratch)},
        )
        os.replace(draft, library)


def _macros() -> list[str]:
    """The constants that the source shares with this package."""
    beta_1, beta_2 = ADAM_BETAS
    values: dict[str, object] = {
        "NUM_RATES": len(Rate),
        "NUM_CONSTANTS": len(Constant),
        **{f"RATE_{column.name}": column.value for column in Rate},
        **{f"CONSTANT_{column.name}": column.value for column in Constant},
        "ADAM_1_MINUS_BETA_1": repr(1 - beta_1),
        "ADAM_BETA_2": repr(beta_2),
        "ADAM_1_MINUS_BETA_2": repr(1 - beta_2),
        "CLIP_EPSILON": repr(CLIP_EPSILON),
        "NEAR_ZERO": repr(NEAR_ZERO),
        "NORMAL_BITS": NORMAL_BITS,
        "RNG_MULTIPLIER_1": hex(rng.MULTIPLIER_1),
        "RNG_MULTIPLIER_2": hex(rng.MULTIPLIER_2),
    }
    return [f"-D{name}={value}" for name, value in values.items()]

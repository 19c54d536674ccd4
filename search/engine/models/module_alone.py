"""A person's code runs here one thread at a time, and leaves no trace on what others compute.

A module's constructor and its forward pass can change anything that torch and Python keep for a
thread or for the whole process: whether gradients are worked out, the default type, the number of
threads.  A device process trains modules of many studies, so all of that is set back afterwards.
"""

from __future__ import annotations

import os
import random
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from threading import RLock
from typing import Any

import numpy as np
import torch

from ridgeline.search.engine.threads import is_flushing

_ALONE = RLock()
"""Held by the one thread that runs or traces a module, while packs train in others.

What both need is the process's, not a thread's: torch's generator, the choice of kernels for
attention, and the methods of `nn.Module`, which tracing replaces for a while.  Graphs need no lock.
"""

_UNREADABLE = object()
"""The value of a setting that torch cannot tell, since others were set by another interface."""


@contextmanager
def alone() -> Iterator[None]:
    """In which a person's code may run: the lock is held, and settings are set back at the end.

    Raises:
        RuntimeError: in place of what is no `Exception`, such as `SystemExit`, which would end the
            process.  `KeyboardInterrupt` passes.
    """
    with _ALONE, ExitStack() as stack:
        # The last to be set back are those that decide how the others are read.
        for keep in (_kept_warnings, _kept_python, _kept_settings, _kept_modes, _kept_inference):
            stack.enter_context(keep())
        try:
            yield
        except (Exception, KeyboardInterrupt):
            raise
        except BaseException as exc:
            raise RuntimeError(f"{type(exc).__name__}: {exc}") from exc


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Alone, and torch's generator of the CPU, Python's and numpy's begin at a seed.

    Afterwards they are as they were.

    Raises:
        RuntimeError: see `alone`.
    """
    with kept_generators():
        begin_at(seed)
        yield


def begin_at(seed: int) -> None:
    """Have the three generators begin at a seed, within `kept_generators`."""
    torch.default_generator.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)


@contextmanager
def kept_generators() -> Iterator[None]:
    """Alone, and those generators are afterwards as they were.

    To copy the state of numpy's takes as long as to build a layer.

    Raises:
        RuntimeError: see `alone`.
    """
    with alone():
        state, python_state, numpy_state = (
            torch.get_rng_state(),
            random.getstate(),
            np.random.get_state(),
        )
        try:
            yield
        finally:
            torch.set_rng_state(state)
            random.setstate(python_state)
            np.random.set_state(numpy_state)


@contextmanager
def _kept_inference() -> Iterator[None]:
    """Inference mode has no setter, but the end of an outer one ends those inside it too."""
    has_gradients = torch.is_grad_enabled()
    with torch.inference_mode(torch.is_inference_mode_enabled()):
        torch.set_grad_enabled(has_gradients)  # which the line above has set
        yield


@contextmanager
def _kept_modes() -> Iterator[None]:
    """The default device, and modes that intercept torch's functions and operations."""
    device = _default_device()
    functions, operations = (
        torch._C._len_torch_function_stack(),
        torch._C._len_torch_dispatch_stack(),
    )
    try:
        yield
    finally:
        if _default_device() != device:
            torch.set_default_device(device)
        while torch._C._len_torch_function_stack() > functions:
            torch._C._pop_torch_function_stack()
        while torch._C._len_torch_dispatch_stack() > operations:
            torch._C._pop_torch_dispatch_stack(None)


def _default_device() -> torch.device | None:
    context = getattr(torch._GLOBAL_DEVICE_CONTEXT, "device_context", None)
    return None if context is None else context.device


def _pair(name: str, *arguments: str) -> tuple[Callable[[], Any], Callable[[Any], Any]]:
    """How torch reads and sets one of its settings; one that this version has not is unreadable."""
    read, write = (getattr(torch._C, f"_{verb}_{name}", _missing) for verb in ("get", "set"))
    return lambda: read(*arguments), lambda value: write(*arguments, value)


def _missing(*_: object) -> Any:
    raise RuntimeError("this version of torch has no such setting")


def _precision(backend: str, operation: str) -> tuple[Callable[[], Any], Callable[[Any], Any]]:
    read = getattr(torch._C, "_get_fp32_precision_getter", _missing)
    write = getattr(torch._C, "_set_fp32_precision_setter", _missing)
    return lambda: read(backend, operation), lambda value: write(backend, operation, value)


def _autocast(device: str) -> list[tuple[Callable[[], Any], Callable[[Any], Any]]]:
    return [
        (
            lambda: torch.is_autocast_enabled(device),
            lambda value: torch.set_autocast_enabled(device, value),
        ),
        (
            lambda: torch.get_autocast_dtype(device),
            lambda value: torch.set_autocast_dtype(device, value),
        ),
    ]


def _nesting() -> int:
    depth: int = torch.autocast_increment_nesting() - 1
    torch.autocast_decrement_nesting()
    return depth


def _set_nesting(depth: int) -> None:
    while _nesting() > depth:
        torch.autocast_decrement_nesting()
    torch.clear_autocast_cache()


def _deterministic() -> tuple[bool, bool]:
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )


def _anomaly() -> tuple[bool, bool]:
    return torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()


def _cuda_device() -> int | None:
    has_begun: bool = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    return torch.cuda.current_device() if has_begun else None


def _set_cuda_device(index: int | None) -> None:
    if index is not None:
        torch.cuda.set_device(index)


_SETTINGS: list[tuple[Callable[[], Any], Callable[[Any], Any]]] = [
    _pair("torch_function_state"),
    (torch.get_default_dtype, torch.set_default_dtype),
    (torch.get_num_threads, torch.set_num_threads),
    (is_flushing, torch.set_flush_denormal),
    (torch.is_grad_enabled, torch._C._set_grad_enabled),
    (torch._C._is_fwd_grad_enabled, torch._C._set_fwd_grad_enabled),
    (torch._C._is_multithreading_enabled, torch._C._set_multithreading_enabled),
    (_anomaly, lambda value: torch.autograd.set_detect_anomaly(*value)),
    (
        _deterministic,
        lambda value: torch.use_deterministic_algorithms(value[0], warn_only=value[1]),
    ),
    _pair("deterministic_fill_uninitialized_memory"),
    *_autocast("cpu"),
    *_autocast("cuda"),
    (torch.is_autocast_cache_enabled, torch.set_autocast_cache_enabled),
    (_nesting, _set_nesting),
    *(
        _precision(backend, operation)
        for backend, operation in (
            ("generic", "all"),
            *(
                (name, kind)
                for name in ("cuda", "mkldnn")
                for kind in ("all", "matmul", "conv", "rnn")
            ),
        )
    ),
    _pair("float32_matmul_precision"),
    _pair("mkldnn_enabled"),
    _pair("mkldnn_deterministic"),
    _pair("nnpack_enabled"),
    _pair("cudnn_enabled"),
    _pair("cudnn_benchmark"),
    _pair("cudnn_deterministic"),
    _pair("cpu_allow_fp16_reduced_precision_reduction"),
    _pair("cublas_allow_fp16_accumulation"),
    (torch._C._get_flash_sdp_enabled, torch._C._set_sdp_use_flash),
    (torch._C._get_mem_efficient_sdp_enabled, torch._C._set_sdp_use_mem_efficient),
    (torch._C._get_math_sdp_enabled, torch._C._set_sdp_use_math),
    (torch._C._get_cudnn_sdp_enabled, torch._C._set_sdp_use_cudnn),
    (torch.backends.mha.get_fastpath_enabled, torch.backends.mha.set_fastpath_enabled),
    (_cuda_device, _set_cuda_device),
    (sys.getrecursionlimit, sys.setrecursionlimit),
    (np.geterr, lambda value: np.seterr(**value)),
]


def _value(read: Callable[[], Any]) -> Any:
    try:
        return read()
    except RuntimeError:
        return _UNREADABLE


@contextmanager
def _kept_settings() -> Iterator[None]:
    values = [_value(read) for read, _ in _SETTINGS]
    try:
        yield
    finally:
        for (read, write), value in zip(_SETTINGS, values, strict=True):
            # Only what has changed: setting the number of threads empties oneDNN's cache.
            if value is not _UNREADABLE and _value(read) != value:
                write(value)


@contextmanager
def _kept_python() -> Iterator[None]:
    """The environment and the current folder."""
    # As bytes: to read the variables by their names takes 50 µs, and a small step 500.
    environment, folder = {**os.environ._data}, _current_folder()  # type: ignore[attr-defined]
    try:
        yield
    finally:
        if os.environ._data != environment:  # type: ignore[attr-defined]
            os.environ.clear()
            for name, value in environment.items():
                os.environ[os.environ.decodekey(name)] = os.environ.decodevalue(value)
        if folder is not None and _current_folder() != folder:
            with suppress(OSError):  # it has been removed meanwhile
                os.chdir(folder)


def _current_folder() -> str | None:
    try:
        return os.getcwd()
    except OSError:
        return None


@contextmanager
def _kept_warnings() -> Iterator[None]:
    filters, content = warnings.filters, [*warnings.filters]
    try:
        yield
    finally:
        if warnings.filters is not filters or [*filters] != content:
            warnings.filters = filters
            warnings.filters[:] = content  # type: ignore[index]
            with warnings.catch_warnings():
                pass  # which has Python forget what it decided by the filters before

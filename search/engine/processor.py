"""What can be told of this machine's processor."""

from __future__ import annotations

import hashlib
import platform
from functools import cache
from pathlib import Path

import torch


@cache
def _described() -> dict[str, str]:
    """The first processor's fields as Linux tells them; none elsewhere."""
    try:
        first, *_ = Path("/proc/cpuinfo").read_text().split("\n\n")
    except OSError:
        return {}
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def maker() -> str:
    """Such as `AuthenticAMD`; empty where it is not known."""
    return _described().get("vendor_id", "")


def kind() -> str:
    """What torch and its libraries choose their kernels by: `x86_64-AuthenticAMD-AVX512`."""
    parts = [platform.machine(), maker(), torch.backends.cpu.get_cpu_capability()]
    return "-".join(part.replace("/", "-") for part in parts if part)


def instructions() -> str:
    """What tells processors apart that do not run each other's machine code."""
    flags = _described().get("flags", platform.processor())
    return f"{platform.machine()} {hashlib.sha256(flags.encode()).hexdigest()}"

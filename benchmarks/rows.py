"""What all benchmarks print: rows of JSON, the first of which says where and when."""

from __future__ import annotations

import datetime
import json
import os
import platform
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

Row = dict[str, Any]


@dataclass(frozen=True)
class Ratio:
    """The median over rounds, and the extremes."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, above: Sequence[float], below: Sequence[float]) -> Ratio:
        """Of figures that were taken in the same rounds."""
        ratios = [a / b for a, b in zip(above, below, strict=True)]
        return cls(statistics.median(ratios), min(ratios), max(ratios))

    def columns(self, name: str) -> Row:
        """For a row: the median, and beside it the extremes."""
        return {
            name: round(self.median, 3),
            f"{name}_range": [round(self.low, 3), round(self.high, 3)],
        }


def header(benchmark: str, device: torch.device) -> Row:
    """Where, when and with what."""
    return {
        "benchmark": benchmark,
        "date": datetime.date.today().isoformat(),
        "device": _name(device),
        "cores": len(os.sched_getaffinity(0)),
        "load_average": round(os.getloadavg()[0], 2),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "cuda": torch.version.cuda if device.type == "cuda" else None,
        "numpy": np.__version__,
        "arguments": sys.argv[1:],
    }


def write(row: Row, out: Path | None) -> None:
    """Print a row, and append it to the file where there is one."""
    line = json.dumps(row, ensure_ascii=False)
    print(line, flush=True)
    if out is not None:
        with out.open("a") as file:
            file.write(f"{line}\n")


def tell(text: str) -> None:
    """Show progress."""
    print(text, file=sys.stderr, flush=True)


def count(text: str) -> int:
    """A whole number of at least 1, as an argument."""
    number = int(text)
    if number < 1:
        raise ValueError("must be at least 1")
    return number


def _name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(": ", 1)[1] for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or "cpu"

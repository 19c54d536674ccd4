"""What packs take of the memory: as much as is predicted, and no more in the long run."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

PREAMBLE = """
import gc, json, sys
from pathlib import Path
import numpy as np, torch
from ridgeline.search.engine import DeviceData, LaneOptions, Lanes, Mlp, Over, RunConfig
from ridgeline.search.engine.memory import bytes_per_slot
from ridgeline.search.engine.pack import Pack
from ridgeline.search.engine.spec import StepSpec

torch.set_num_threads(1)

def resident():
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) * 1024

def data_of(num_train, num_features):
    generator = np.random.default_rng(0)
    def part(n):
        return generator.normal(size=(n, num_features)), generator.integers(0, 10, n)
    return DeviceData.from_arrays(part(num_train), part(64), part(64), num_classes=10,
                                  device=torch.device("cpu"))

def run(seed, **changes):
    settings = {"learning_rate": 0.01, "batch_size": 128, "epochs": 2, **changes}
    return RunConfig(seed=seed, **settings)
"""

SLOPE = """
data, shape = data_of(4000, 784), Mlp(784, (512,), 10)
spec = StepSpec.of(run(0, dropout=DROPOUT), shape, 4000, "float32")
sizes = {}
for width in (8, 40):
    gc.collect()
    before = resident()
    pack = Pack(spec, data, width=width)
    for slot in range(width):
        pack.load(slot, run(slot, dropout=DROPOUT))
    pack.tick(3)
    sizes[width] = resident() - before
    del pack
print(json.dumps([(sizes[40] - sizes[8]) / 32, bytes_per_slot(spec, 40)]))
"""

MANY = """
data, shape = data_of(32, 8), Mlp(8, (4,), 10)
lanes = Lanes(torch.device("cpu"), LaneOptions(width=16))
sizes, ended, added = [], 0, 0
for _ in range(11):
    for _ in range(1000):
        lanes.add(added, run(added, batch_size=32, epochs=1, patience=1), shape, data)
        added += 1
    while not lanes.is_idle:
        ended += sum(isinstance(event, Over) for event in lanes.advance())
    gc.collect()
    sizes.append(resident())
print(json.dumps([ended, sizes]))
"""


def run_in_a_process(code: str) -> list[float]:
    """What the code prints; allocations are returned to the system at once, so that they show."""
    done = subprocess.run(
        [sys.executable, "-c", PREAMBLE + code],
        capture_output=True,
        text=True,
        check=True,
        env={"MALLOC_TRIM_THRESHOLD_": "0", "MALLOC_MMAP_THRESHOLD_": "65536", "PATH": ""},
    )
    result: list[float] = json.loads(done.stdout)
    return result


@pytest.mark.parametrize("dropout", ["0.0", "0.5"])
def test_memory_grows_with_the_slots_as_predicted(dropout: str) -> None:
    measured, predicted = run_in_a_process(SLOPE.replace("DROPOUT", dropout))
    assert measured == pytest.approx(predicted, rel=0.2)


def test_ten_thousand_runs_leave_nothing_behind() -> None:
    ended, sizes = run_in_a_process(MANY)
    assert ended == 11_000
    assert isinstance(sizes, list)
    # After the first thousand, which fill caches; less than 1 kB a run.
    assert sizes[-1] - sizes[0] < 10_000 * 1_000

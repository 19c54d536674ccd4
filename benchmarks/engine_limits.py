"""What the device could do at best, for a work and a batch size.

A sample cannot take less than flops/peak + bytes/bandwidth seconds, with peak and bandwidth as
measured here.  Counted are, for each training sample:

* flops: 2·W forwards and 2·W for the gradients of the W entries of the weight matrices, 2·(W - W₁)
  for the gradients of the inputs of all layers past the first (of W₁ entries), and 2·W forwards for
  each validation sample that an epoch has for one training sample;
* bytes: for each step and slot 8·P·4 for the P parameters, which Adam reads and writes with two
  moments (6), and gradients that are written and read (2); and D·4 for the row of D features.

Not counted: activations, coefficients and the batch, which stay in the cache; the labels; what the
evaluation reads.  Where the state of a pack fits the cache as well, its bytes never go to memory,
and a share above 1 is possible: digits, and 784-128-10 in packs of 8 on a CPU with 32 MiB.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import torch

from benchmarks.engine_data import Work
from benchmarks.engine_loops import synchronise
from ridgeline.search.engine.products import products

_ITEM = 4  # bytes of a float32
_REPEATS = 5
BYTES_COUNTED = (
    "a step and slot: parameters and two moments read and written, gradients written and read; "
    "a sample: its row of features read"
)
FLOPS_COUNTED = (
    "forward, weight gradients, input gradients past the first layer, "
    "forward on the validation samples of an epoch"
)


@dataclass(frozen=True)
class Cost:
    """What one training sample costs at least."""

    flops: float
    bytes: float

    @classmethod
    def of(cls, work: Work, batch_size: int) -> Cost:
        """The counts listed above, with the evaluation after each epoch."""
        matrices = [math.prod(pair) for pair in pairwise(work.shape.widths)]
        num_entries = sum(matrices)
        num_parameters = num_entries + sum(work.shape.widths[1:])
        num_train, num_validation = len(work.train), len(work.validation)
        num_steps = math.ceil(num_train / batch_size)
        training = 2 * num_entries + 2 * num_entries + 2 * (num_entries - matrices[0])
        evaluation = 2 * num_entries * num_validation / num_train
        state = 8 * num_parameters * _ITEM * num_steps / num_train
        return cls(training + evaluation, state + work.shape.num_features * _ITEM)


@dataclass
class Device:
    """The peak and the bandwidth of a device, measured again in each round; medians count."""

    device: torch.device
    quick: bool
    _peaks: list[float] = field(default_factory=list)
    _bandwidths: list[float] = field(default_factory=list)

    def measure(self) -> None:
        """Take both again."""
        self._peaks += self._measure_peak()
        self._bandwidths += self._measure_bandwidth()

    @property
    def peak(self) -> float:
        """FLOP/s of a large product of float32 matrices, by the library that is fastest at it."""
        return statistics.median(self._peaks)

    @property
    def bandwidth(self) -> float:
        """Bytes/s of STREAM's triad on large arrays."""
        return statistics.median(self._bandwidths)

    def limit(self, costs: Sequence[Cost]) -> float:
        """Samples a second at best, with as many samples of each cost."""
        seconds = [cost.flops / self.peak + cost.bytes / self.bandwidth for cost in costs]
        return len(costs) / sum(seconds)

    def _measure_peak(self) -> list[float]:
        side = 512 if self.quick else 8192 if self.device.type == "cuda" else 2048
        a = torch.rand(side, side, device=self.device)
        b, product = torch.rand_like(a), torch.empty_like(a)
        flops = 2 * side**3
        with products(flops, self.device, a.dtype):
            return self._rates(lambda: torch.mm(a, b, out=product), flops)

    def _measure_bandwidth(self) -> list[float]:
        length = 2**22 if self.quick else 2**28 if self.device.type == "cuda" else 2**25
        a = torch.ones(length, device=self.device)
        b, triad = torch.ones_like(a), torch.zeros_like(a)
        # STREAM's triad (McCalpin, 1995) and its count: two arrays read, one written.
        amount = 3 * length * _ITEM
        return self._rates(lambda: torch.add(a, b, alpha=3.0, out=triad), amount)

    def _rates(self, run: Callable[[], object], amount: float) -> list[float]:
        run()
        rates = []
        for _ in range(_REPEATS):
            synchronise(self.device)
            start = time.perf_counter()
            run()
            synchronise(self.device)
            rates.append(amount / (time.perf_counter() - start))
        return rates

"""The eager form of a pack's steps: by torch's operations, and native code where there is any.

# K slots, B rows of a batch
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ridgeline.search.engine.graphs import RecordedSteps, records
from ridgeline.search.engine.layout import Stacks
from ridgeline.search.engine.memory import PackMemory
from ridgeline.search.engine.native import Kernels
from ridgeline.search.engine.native_steps import NativeStep
from ridgeline.search.engine.spec import StepSpec
from ridgeline.search.engine.step import Step, Terms, stretches


def eager_steps(
    spec: StepSpec, memory: PackMemory, gradients: Stacks, kernels: Kernels | None = None
) -> Callable[[Terms, int], None]:
    """So many steps of a pack's tensors, with a region for each of their stretches.

    Args:
        gradients: laid out as the parameters; the gaps between them must hold zeros.
        kernels: for a CPU: of whole steps where they have the model, or else of the update and
            dropout; None has torch alone.
    """
    regions = stretches(memory, gradients)
    inputs, views = memory.inputs(), gradients.views()
    num_slots, _, num_rows = memory.samples_KSB.shape
    program = None if kernels is None else spec.native()
    if kernels is not None and program is not None:
        run = program.bind_steps(kernels, spec, inputs, views, regions)
        return lambda terms, count: run(terms.num_slots or num_slots, count)
    x = memory.data.train.x
    batch_KB = x.new_zeros(num_slots, num_rows, *x.shape[1:])

    def rows_of(x: Tensor, samples_KB: Tensor) -> Tensor:
        # Into the same memory each time, and two to three times as fast as x[samples_KB].
        torch.index_select(x, 0, samples_KB.view(-1), out=batch_KB.view(-1, *x.shape[1:]))
        return batch_KB

    if kernels is None:
        step = Step(spec, inputs, views, regions, rows_of)
        return RecordedSteps(step) if records(spec, x.device) else step.repeat
    native = NativeStep(kernels, spec, inputs, regions)
    return Step(spec, inputs, views, regions, rows_of, native.dropout_factors, native.update).repeat

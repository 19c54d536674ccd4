"""The eager form of a pack's steps: by torch's operations, and native code where there is any."""

from __future__ import annotations

from collections.abc import Callable

from ridgeline.search.engine.batch import Batches
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
    num_slots = len(memory.step_K)
    program = None if kernels is None else spec.native()
    if kernels is not None and program is not None:
        run = program.bind_steps(kernels, spec, inputs, views, regions)
        return lambda terms, count: run(terms.num_slots or num_slots, count)
    batches = Batches(inputs)
    if kernels is None:
        step = Step(spec, inputs, views, regions, batches)
        return RecordedSteps(step) if records(spec, memory.data.device) else step.repeat
    native = NativeStep(kernels, spec, inputs, regions)
    return Step(spec, inputs, views, regions, batches, native.dropout_factors, native.update).repeat

"""What functions have of a machine: how many are called at once, and what each may take."""

from __future__ import annotations

from dataclasses import dataclass

from ridgeline.search.tasks.function import FunctionTask
from ridgeline.search.tasks.registry import of_workers
from ridgeline.service.protocol import RunOrder
from ridgeline.service.worker.functions.lines import Line
from ridgeline.service.worker.machine import memory_bytes, num_cores


@dataclass(frozen=True)
class FunctionSlots:
    """Equal shares of a machine.

    Attributes:
        count: functions that are called at once.
        threads: of the numerical libraries of each.
        max_bytes: memory of one whose task does not say; None: as much as there is.
    """

    count: int
    threads: int
    max_bytes: int | None

    def limits(self, task: FunctionTask, order: RunOrder) -> Line:
        """The limits of a run, as its `Guard` has them."""
        seconds = [
            (limit, name)
            for limit, name in (
                (task.max_seconds, f"max_seconds of the task {task.name}"),
                (order.run_seconds, "budget.run_seconds"),
            )
            if limit is not None
        ]
        max_seconds, seconds_name = min(seconds, default=(None, ""))
        is_own = task.max_bytes is not None
        return {
            "max_seconds": max_seconds,
            "seconds_name": seconds_name,
            "max_bytes": task.max_bytes if is_own else self.max_bytes,
            "bytes_name": f"max_bytes of the task {task.name}" if is_own else "its share",
        }


def slots_of(count: int | None) -> FunctionSlots | None:
    """The slots of this machine; None where there is nothing for them.

    Args:
        count: None takes one for each core, 0 none.
    """
    cores = num_cores()
    count = cores if count is None else count
    if count == 0 or not any(task.needs_process for task in of_workers()):
        return None
    return FunctionSlots(count, max(1, cores // count), memory_bytes() // count)

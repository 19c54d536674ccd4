"""A worker whose device processes close all their pipes after a while, and live on.

`deaf_worker.py N …`: after the N-th moment of training; what follows are the options of
`ridgeline worker`.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass

from ridgeline.search.events import Event
from ridgeline.service.worker.backend import EngineBackend, EngineTrainer
from ridgeline.service.worker.training import DeviceSpec
from tests.chaos.own_trainer import work_with


class DeafTrainer(EngineTrainer):
    def __init__(self, device: str, spec: DeviceSpec, num_left: int) -> None:
        super().__init__(device, spec)
        self._num_left = num_left

    def advance(self) -> Sequence[Event]:
        self._num_left -= 1
        if self._num_left <= 0:
            # The thread that reads orders would end the process.
            os._exit = lambda _: threading.Event().wait()  # type: ignore[assignment,return-value]
            os.write(2, f"deaf from now on: {os.getpid()}\n".encode())
            os.closerange(0, 1_000)
            threading.Event().wait()
        return super().advance()


@dataclass(frozen=True)
class DeafBackend(EngineBackend):
    num_left: int

    def trainer(self, device: str, spec: DeviceSpec) -> DeafTrainer:
        return DeafTrainer(device, spec, self.num_left)


if __name__ == "__main__":  # device processes import this module too
    # By the name that device processes know it by.
    from tests.chaos.deaf_worker import DeafBackend as Backend

    work_with(Backend(int(sys.argv[1])))

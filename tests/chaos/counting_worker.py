"""A worker that notes each epoch that it trains, whether or not it lives to tell it.

`counting_worker.py FILE …`: adds a byte to the file for each; what follows are the options of
`ridgeline worker`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ridgeline.search.events import Event, Reported
from ridgeline.service.worker.backend import EngineBackend, EngineTrainer
from ridgeline.service.worker.training import DeviceSpec
from tests.chaos.own_trainer import work_with


class CountingTrainer(EngineTrainer):
    def __init__(self, device: str, spec: DeviceSpec, path: Path) -> None:
        super().__init__(device, spec)
        self._path = path

    def advance(self) -> Sequence[Event]:
        events = super().advance()
        num_epochs = sum(isinstance(event, Reported) for event in events)
        with self._path.open("ab") as file:
            file.write(b"." * num_epochs)
        return events


@dataclass(frozen=True)
class CountingBackend(EngineBackend):
    path: Path

    def trainer(self, device: str, spec: DeviceSpec) -> CountingTrainer:
        return CountingTrainer(device, spec, self.path)


if __name__ == "__main__":  # device processes import this module too
    # By the name that device processes know it by.
    from tests.chaos.counting_worker import CountingBackend as Backend

    work_with(Backend(Path(sys.argv[1])))

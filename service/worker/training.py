"""What a device process trains with: a backend makes its trainer, which trains runs in packs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ridgeline.search.events import Event
from ridgeline.service.logs import LogFormat
from ridgeline.service.protocol import DatasetInfo, RunOrder, StudyRules
from ridgeline.service.worker.messages import Checkpoint, Key


@dataclass(frozen=True)
class DeviceSpec:
    """What a device process is started with.

    `name` None takes the first device there is.  `survey` asks for the machine's devices and the
    data sets built in, in the `Hello`.  `threads`, `width`, `compile`, `cache` and
    `checkpoint_seconds` are of the engine's `LaneOptions`.
    """

    name: str | None
    data_root: Path | None
    threads: int = 1
    survey: bool = False
    width: int | None = None
    compile: bool = True
    cache: Path | None = None
    checkpoint_seconds: float = 10.0
    log_format: LogFormat = "text"


class Trainer(Protocol):
    """Trains many runs at once on one device, and refills a slot the moment its run ends."""

    @property
    def num_slots(self) -> int:
        """How many runs it trains at once, at most."""
        ...

    @property
    def is_idle(self) -> bool:
        """Whether no run waits or trains."""
        ...

    @property
    def num_idle(self) -> int:
        """Slots of packs in training that no run is in."""
        ...

    def add(self, order: RunOrder, checkpoint: Checkpoint | None = None) -> None:
        """Have a run wait for a slot; any exception says why it can never begin.

        It goes on from the checkpoint where that can be used, in the checkpoint's program alone;
        where not, it starts from nothing, in any.
        """
        ...

    def remove(self, key: Key) -> bool:
        """Free the slot or the waiting place of a run at once; False where there is no such run."""
        ...

    def set_rules(self, rules: StudyRules) -> None:
        """Prune the runs of a study by these rules, instead of those before."""
        ...

    def advance(self) -> Sequence[Event]:
        """Train for a moment; what there is to tell by the key of an order, as it happened.

        `Began` is told before the run is touched, which is a later call's: should that kill the
        process, it is known who trained.
        """
        ...

    def turns(self) -> Mapping[Key, object]:
        """By run that is trained or built at this moment, its turn; may be called from any thread.

        A turn ends within moments, and the next one is another object.
        """
        ...


class Backend(Protocol):
    """What a device process trains with; pickled on its way there."""

    def devices(self) -> tuple[str, ...]:
        """All devices of this machine that it can use."""
        ...

    def datasets(self) -> tuple[DatasetInfo, ...]:
        """Those that every machine has."""
        ...

    def trainer(self, device: str, spec: DeviceSpec) -> Trainer:
        """The trainer of one device; fails where the device cannot be used."""
        ...

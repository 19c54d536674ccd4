"""The engine: packs of runs trained as one batched tensor program.

Imports torch and numpy alone, and those only when a name below is asked for: the modules that
describe (`config`, `models`, `pruning`, `rates`, `spec`) can be used where there is no torch.  A
worker needs `Lanes`, and for it `RunConfig`, a model and `DeviceData`; `TrainingRun` is one run by
itself.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ridgeline.search.engine.checkpoint import CheckpointError
    from ridgeline.search.engine.config import RunConfig
    from ridgeline.search.engine.data import DeviceData
    from ridgeline.search.engine.evaluation import NEAR_ZERO
    from ridgeline.search.engine.lane import LaneOptions
    from ridgeline.search.engine.lanes import Lanes
    from ridgeline.search.engine.models.mlp import Mlp
    from ridgeline.search.engine.pack import Pack
    from ridgeline.search.engine.program import ProgramIdentity
    from ridgeline.search.engine.progress import EpochReport, Outcome
    from ridgeline.search.engine.pruning import PruningRules
    from ridgeline.search.engine.run import TrainingRun
    from ridgeline.search.events import Began, Event, Failed, HandedBack, Over, Reported, Saved

_PLACES = {
    "ridgeline.search.engine.checkpoint": ("CheckpointError",),
    "ridgeline.search.engine.config": ("RunConfig",),
    "ridgeline.search.engine.data": ("DeviceData",),
    "ridgeline.search.engine.evaluation": ("NEAR_ZERO",),
    "ridgeline.search.engine.lane": ("LaneOptions",),
    "ridgeline.search.engine.lanes": ("Lanes",),
    "ridgeline.search.engine.models.mlp": ("Mlp",),
    "ridgeline.search.engine.pack": ("Pack",),
    "ridgeline.search.engine.program": ("ProgramIdentity",),
    "ridgeline.search.engine.progress": ("EpochReport", "Outcome"),
    "ridgeline.search.engine.pruning": ("PruningRules",),
    "ridgeline.search.engine.run": ("TrainingRun",),
    "ridgeline.search.events": (
        "Began",
        "Event",
        "Failed",
        "HandedBack",
        "Over",
        "Reported",
        "Saved",
    ),
}
_PLACE_OF = {name: place for place, names in _PLACES.items() for name in names}

__all__ = [
    "NEAR_ZERO",
    "Began",
    "CheckpointError",
    "DeviceData",
    "EpochReport",
    "Event",
    "Failed",
    "HandedBack",
    "LaneOptions",
    "Lanes",
    "Mlp",
    "Outcome",
    "Over",
    "Pack",
    "ProgramIdentity",
    "PruningRules",
    "Reported",
    "RunConfig",
    "Saved",
    "TrainingRun",
]


def __getattr__(name: str) -> Any:
    """Import a name from its place when it is first asked for."""
    if name not in _PLACE_OF:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    value = getattr(import_module(_PLACE_OF[name]), name)
    globals()[name] = value
    return value

"""The engine: packs of runs trained as one batched tensor program.

Imports torch and numpy alone.  A worker needs `Lanes`, and for it `RunConfig`, `ModelShape` and
`DeviceData`; `TrainingRun` is one run by itself.
"""

from ridgeline.search.engine.checkpoint import CheckpointError
from ridgeline.search.engine.config import ModelShape, RunConfig
from ridgeline.search.engine.data import DeviceData
from ridgeline.search.engine.evaluation import NEAR_ZERO
from ridgeline.search.engine.lane import LaneOptions
from ridgeline.search.engine.lanes import Lanes
from ridgeline.search.engine.pack import Pack
from ridgeline.search.engine.program import ProgramIdentity
from ridgeline.search.engine.progress import EpochReport, Outcome
from ridgeline.search.engine.pruning import PruningRules
from ridgeline.search.engine.run import TrainingRun
from ridgeline.search.events import Began, Event, Failed, HandedBack, Over, Reported

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
    "ModelShape",
    "Outcome",
    "Over",
    "Pack",
    "ProgramIdentity",
    "PruningRules",
    "Reported",
    "RunConfig",
    "TrainingRun",
]

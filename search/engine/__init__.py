"""The engine: packs of runs trained as one batched tensor program.

Imports torch and numpy alone.  A worker needs `Lanes`, and for it `RunConfig`, `ModelShape` and
`DeviceData`; `TrainingRun` is one run by itself.
"""

from search.engine.checkpoint import CheckpointError
from search.engine.config import ModelShape, RunConfig
from search.engine.data import DeviceData
from search.engine.evaluation import NEAR_ZERO
from search.engine.lane import LaneOptions
from search.engine.lanes import Lanes
from search.engine.pack import Pack
from search.engine.program import ProgramIdentity
from search.engine.progress import EpochReport, Outcome
from search.engine.pruning import PruningRules
from search.engine.run import TrainingRun
from search.events import Began, Event, Failed, HandedBack, Over, Reported

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

"""The engine: packs of runs trained as one batched tensor program.

Imports torch and numpy alone.  A worker needs `TrainingRun`, and for it `RunConfig`, `ModelShape`
and `DeviceData`.
"""

from search.engine.checkpoint import CheckpointError
from search.engine.config import ModelShape, RunConfig
from search.engine.data import DeviceData
from search.engine.evaluation import NEAR_ZERO
from search.engine.pack import Pack
from search.engine.program import ProgramIdentity
from search.engine.progress import EpochReport, Outcome
from search.engine.run import TrainingRun

__all__ = [
    "NEAR_ZERO",
    "CheckpointError",
    "DeviceData",
    "EpochReport",
    "ModelShape",
    "Outcome",
    "Pack",
    "ProgramIdentity",
    "RunConfig",
    "TrainingRun",
]

"""Exhaustive tables: what training came to at every cell of a grid, for several seeds.

    python -m benchmarks.search.tables --data FOLDER

trains them again, with packs, into `benchmarks/search/tables/`.  FOLDER is that of
`benchmarks.search.data`.

# C cells, S seeds, E epochs
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.rows import tell
from benchmarks.search.data import READERS, load
from ridgeline.search.engine import DeviceData, LaneOptions, Lanes, Mlp, Over, Reported, RunConfig
from ridgeline.search.events import Failed, HandedBack
from ridgeline.search.space import Config, Space

FOLDER = Path(__file__).parent / "tables"

AXES: dict[str, list[Any]] = {
    "learning_rate": [float(f"{rate:.1e}") for rate in np.geomspace(1e-4, 0.3, 10)],
    "batch_size": [16, 32, 64, 128],
    "l2": [0.0, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1],
    "dropout": [0.0, 0.2, 0.4, 0.6],
    "hidden": [16, 64],
}
"""The best and the hopeless, as a space that a person writes has both."""

NUM_SEEDS = 3
NUM_EPOCHS = 10
_CELLS_AT_ONCE = 512

Counts = npt.NDArray[np.uint16]
Losses = npt.NDArray[np.float32]


class Grid(NamedTuple):
    """The space of some axes, and all its cells.

    Attributes:
        cells: in the order of the rows of a table: the last axis changes fastest.
        number_of: the row of the cell with these values.
    """

    space: Space
    cells: list[Config]
    number_of: dict[tuple[Any, ...], int]


def grid_of(axes: Mapping[str, list[Any]]) -> Grid:
    """The grid of lists of values."""
    parameters = {name: {"type": "values", "values": values} for name, values in axes.items()}
    rows = [*itertools.product(*axes.values())]
    return Grid(
        Space.model_validate(parameters),
        [dict(zip(axes, values, strict=True)) for values in rows],
        {values: number for number, values in enumerate(rows)},
    )


SPACE, CELLS, NUMBER_OF = grid_of(AXES)


@dataclass(frozen=True)
class Table:
    """What was seen of one data set's validation rows.

    Attributes:
        wrong_CSE: rows that the weights after each epoch got wrong; all of them once a run has
            diverged.
        loss_CS: mean cross-entropy in nats after the last epoch; NaN where a run diverged.
    """

    name: str
    num_rows: int
    wrong_CSE: Counts
    loss_CS: Losses

    @classmethod
    def read(cls, name: str, folder: Path = FOLDER) -> Table:
        with np.load(folder / f"{name}.npz") as file:
            # From one epoch to the next counts change little, and small numbers compress.
            wrong_CSE = np.cumsum(file["steps"], axis=2, dtype=np.int32).astype(np.uint16)
            loss_CS = np.exp(file["log_loss"].astype(np.float32))
            return cls(name, int(file["num_rows"]), wrong_CSE, loss_CS)

    def write(self, folder: Path = FOLDER) -> None:
        steps = np.diff(self.wrong_CSE.astype(np.int32), axis=2, prepend=0).astype(np.int16)
        np.savez_compressed(
            folder / f"{self.name}.npz",
            num_rows=self.num_rows,
            steps=steps,
            # Its logarithm: half precision ends at 6e-8 and at 65504.
            log_loss=np.log(np.maximum(self.loss_CS, 1e-30)).astype(np.float16),
        )

    @cached_property
    def error_CS(self) -> npt.NDArray[np.float64]:
        """Share of wrong rows after the last epoch; NaN where a run diverged."""
        errors: npt.NDArray[np.float64] = self.wrong_CSE[:, :, -1] / self.num_rows
        return np.where(np.isnan(self.loss_CS), np.nan, errors)


def train(
    name: str,
    data: DeviceData,
    cells: Sequence[Config],
    *,
    num_seeds: int,
    num_epochs: int,
    threads: int,
) -> Table:
    """Train every cell with every seed; a cell has parameters of `RunConfig` and `hidden`."""
    num_rows = data.validation.num_samples
    wrong_CSE = np.full((len(cells), num_seeds, num_epochs), num_rows, np.uint16)
    loss_CS = np.full((len(cells), num_seeds), np.nan, np.float32)
    lanes = Lanes(torch.device("cpu"), LaneOptions(compile=False, threads=threads))
    for start in range(0, len(cells), _CELLS_AT_ONCE):
        for number in range(start, min(start + _CELLS_AT_ONCE, len(cells))):
            cell: dict[str, Any] = dict(cells[number])
            shape = Mlp(data.sample_shape[0], (cell.pop("hidden"),), data.targets.count)
            for seed in range(num_seeds):
                config = RunConfig(seed=seed, epochs=num_epochs, **cell)
                lanes.add((number, seed), config, shape, data)
        while not lanes.is_idle:
            for event in lanes.advance():
                if isinstance(event, Reported):
                    metrics = event.report.metrics
                    right = round(metrics["validation_accuracy"] * num_rows)
                    wrong_CSE[(*_place(event.key), event.report.epoch - 1)] = num_rows - right
                elif isinstance(event, Over) and event.outcome.state == "complete":
                    loss_CS[_place(event.key)] = event.outcome.metrics["validation_loss"]
                elif isinstance(event, Failed | HandedBack):
                    raise event.error
        tell(f"{name}: {min(start + _CELLS_AT_ONCE, len(cells))} of {len(cells)} cells")
    return Table(name, num_rows, wrong_CSE, loss_CS)


def _place(key: object) -> tuple[int, int]:
    assert isinstance(key, tuple)
    return key


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.search.tables",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--names", nargs="*", choices=READERS, default=[*READERS])
    parser.add_argument("--threads", type=int, default=2, help="of the CPU; default 2")
    arguments = parser.parse_args()
    for name in arguments.names:
        data = load(name, arguments.data)
        table = train(
            name,
            data,
            CELLS,
            num_seeds=NUM_SEEDS,
            num_epochs=NUM_EPOCHS,
            threads=arguments.threads,
        )
        table.write()


if __name__ == "__main__":
    main()

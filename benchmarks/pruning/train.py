"""Learning curves: validation rows got wrong after each epoch, at every cell of a grid.

    python -m benchmarks.pruning.train --data FOLDER

trains them again into `benchmarks/pruning/curves/`.  FOLDER is that of `benchmarks.search.data`.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.search.data import load
from benchmarks.search.tables import grid_of, train

FOLDER = Path(__file__).parent / "curves"

AXES: dict[str, list[Any]] = {
    "learning_rate": [float(f"{rate:.1e}") for rate in np.geomspace(1e-4, 0.3, 10)],
    "batch_size": [16, 32, 64, 128],
    "l2": [0.0, 1e-4, 1e-3, 1e-2],
    "dropout": [0.0, 0.25, 0.5],
}
"""The usual ranges, and learning rates beyond them at which nothing good comes out."""

TABLES = ("digits", "mnist", "breast-cancer", "sms-spam")
HIDDEN = 64
NUM_SEEDS = 2
NUM_EPOCHS = 27
_NUM_ROWS = 2_000

SPACE, CELLS, NUMBER_OF = grid_of(AXES)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.pruning.train",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--names", nargs="*", choices=TABLES, default=[*TABLES])
    parser.add_argument("--threads", type=int, default=2, help="of the CPU; default 2")
    arguments = parser.parse_args()
    FOLDER.mkdir(exist_ok=True)
    for name in arguments.names:
        table = train(
            name,
            load(name, arguments.data, _NUM_ROWS),
            [{**cell, "hidden": HIDDEN} for cell in CELLS],
            num_seeds=NUM_SEEDS,
            num_epochs=NUM_EPOCHS,
            threads=arguments.threads,
        )
        table.write(FOLDER)


if __name__ == "__main__":
    main()

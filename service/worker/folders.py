"""The folders of a worker's data root, looked at now and then."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from ridgeline.search.tasks.data_root import DataRoot
from ridgeline.service.protocol import DatasetInfo
from ridgeline.service.repeating import Repeater

LOOK_SECONDS = 10.0


class WatchedFolders:
    """The data sets in a data root, from `start` until `stop`.

    Args:
        on_change: called, from another thread, when they are others than before.
    """

    def __init__(self, data_root: Path | None, on_change: Callable[[], None]) -> None:
        self._root = DataRoot(data_root)
        self._on_change = on_change
        self._repeater = Repeater(self._look_again, seconds=LOOK_SECONDS)
        self.datasets: tuple[DatasetInfo, ...] = ()

    def start(self) -> None:
        """Returns once all files have been read."""
        self.datasets = self._look()
        self._repeater.start()

    def stop(self) -> None:
        self._repeater.stop()

    def _look(self) -> tuple[DatasetInfo, ...]:
        return tuple(DatasetInfo(**asdict(card)) for card in self._root.look().cards)

    def _look_again(self) -> None:
        found = self._look()
        if found != self.datasets:
            self.datasets = found
            self._on_change()

"""The folders of a data root, looked at again and again."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from ridgeline.search.tasks.data import DatasetCard, DatasetError
from ridgeline.search.tasks.datasets import Stamp, card_of, is_here, printable, stamp_of

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Folders:
    """What the folders of a data root are."""

    cards: list[DatasetCard] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    """Why a folder is no data set, by its name."""


class DataRoot:
    """The folders of a data root, without the built-in data sets and so without scikit-learn.

    Threads may look at the same time: each folder is read by one of them.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._read: dict[str, tuple[Stamp, DatasetCard | str]] = {}
        self._being_read: set[str] = set()
        self._changes = threading.Condition()
        self._trouble: str | None = None

    def look(
        self, *, only: Collection[str] | None = None, patience_seconds: float | None = None
    ) -> Folders:
        """The folders as they are now, sorted by name.

        A fingerprint needs all the numbers, so each folder is read in full, but only once for each
        change of its files' names, sizes or times.  Why one is left out is logged then.

        Args:
            only: folders to read where they have changed; others are told as they were last read.
                None: all.
            patience_seconds: how long to wait for folders that another thread reads; they are told
                as they were then, or left out.  None: until they are read.
        """
        deadline = None if patience_seconds is None else time.monotonic() + patience_seconds
        with self._changes:
            before = set(self._read)
        folders = self._folders()
        for folder in folders:
            if only is None or folder.name in only:
                self._keep_up(folder, deadline)
        found = Folders()
        with self._changes:
            names = {folder.name for folder in folders}
            for gone in before - names:
                self._read.pop(gone, None)
            for name in sorted(names):
                _, known = self._read.get(name, (None, _UNREAD))
                if isinstance(known, str):
                    found.left_out[printable(name)] = known
                else:
                    found.cards.append(known)
        return found

    def _keep_up(self, folder: Path, deadline: float | None) -> None:
        """Read a folder that has changed, or wait for the thread that does."""
        with self._changes:
            while folder.name in self._being_read:
                rest = None if deadline is None else deadline - time.monotonic()
                if not self._changes.wait(rest if rest is None else max(0.0, rest)):
                    return
            stamp = stamp_of(folder)
            known = self._read.get(folder.name)
            if known is not None and known[0] == stamp:
                return
            self._being_read.add(folder.name)
        read = None
        try:
            read = stamp, self._card_or_reason(folder)
        finally:
            with self._changes:
                self._being_read.remove(folder.name)
                if read is not None:
                    self._read[folder.name] = read
                self._changes.notify_all()

    def _folders(self) -> list[Path]:
        if self._path is None:
            return []
        found, trouble = [], None
        try:
            found = sorted(path for path in self._path.iterdir() if _may_hold_data(path))
        except OSError as exc:
            trouble = str(exc)
        with self._changes:
            is_news, self._trouble = trouble != self._trouble, trouble
        if is_news and trouble is not None:
            _log.warning("the data root cannot be read: %s", trouble)
        return found

    def _card_or_reason(self, folder: Path) -> DatasetCard | str:
        try:
            if is_here(folder.name):
                raise DatasetError(f"the folder {folder.name} has the name of a built-in data set")
            return card_of(folder.name, self._path)
        except DatasetError as exc:
            reason = printable(str(exc))
            _log.warning("left out: %s", reason)
            return reason


_UNREAD = "it is not read yet: ask again in a while"


def _may_hold_data(path: Path) -> bool:
    # Not `Path.is_dir`, which raises for some links.
    return not path.name.startswith(".") and os.path.isdir(path)

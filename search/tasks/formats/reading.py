"""Which format a folder's files are of, and the arrays in them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from ridgeline.search.tasks.formats import data_labels, idx, npz, table, text
from ridgeline.search.tasks.formats.base import FormatError, RawParts
from ridgeline.search.tasks.formats.files import Folder

_FORMATS: dict[Callable[[Sequence[str]], bool], Callable[[Folder], RawParts]] = {
    format.is_there: format.read_folder for format in (idx, npz, data_labels, table, text)
}


def read_folder(path: Path, root: Path) -> RawParts:
    """The arrays of a folder, which must lie under `root` with all its files, links followed.

    Raises:
        FormatError: its files are malformed, of no known format, or of several.
    """
    folder = Folder(path, root)
    found = [read for is_there, read in _FORMATS.items() if is_there(folder.names)]
    if not found:
        raise FormatError(
            "there are no files train-images* and train-labels*, no train.npz, no *_train.data and "
            "*_train.labels, no train.csv and no train.tsv"
        )
    if len(found) > 1:
        raise FormatError("it has files of several formats: leave those of one there")
    return found[0](folder)

"""Which format a folder's files are of, and the arrays in them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from ridgeline.search.tasks.data import ColumnCard
from ridgeline.search.tasks.formats import data_labels, idx, images, npz, parquet, table, text
from ridgeline.search.tasks.formats.base import FormatError, RawParts, Summary
from ridgeline.search.tasks.formats.files import Folder
from ridgeline.search.tasks.formats.sheet import Sheet
from ridgeline.search.tasks.formats.uses import columns_of
from ridgeline.search.tasks.kinds import FilesKind
from ridgeline.search.tasks.settings import AS_IT_IS, Reading

_FORMATS: dict[Callable[[Sequence[str]], bool], Callable[[Folder], RawParts]] = {
    format.is_there: format.read_folder for format in (idx, npz, data_labels, text)
}


class _Told(NamedTuple):
    """A format of which a study may have to say more than its files do.

    Attributes:
        sheets: of a table, its files anew.
    """

    read_folder: Callable[[Folder, Reading], RawParts]
    summary: Callable[[Folder], Summary]
    sheets: Callable[[Folder], list[Sheet]] | None = None


_TOLD: dict[Callable[[Sequence[str]], bool], _Told] = {
    table.is_there: _Told(table.read_folder, table.summary, table.sheets),
    parquet.is_there: _Told(parquet.read_folder, parquet.summary, parquet.sheets),
}
_IMAGES = _Told(images.read_folder, images.summary)
"""Of a folder that has folders, but no files of another format."""


def read_folder(path: Path, root: Path, reading: Reading = AS_IT_IS) -> RawParts:
    """The arrays of a folder, which must lie under `root` with all its files, links followed.

    Raises:
        TellsTooLittle: a study has to say more of it than `reading` does.
        FormatError: its files are malformed, of no known format, or of several.
    """
    folder = Folder(path, root)
    told = _told(folder)
    plain = [read for is_there, read in _FORMATS.items() if is_there(folder.names)]
    if not told and not plain:
        raise FormatError(
            "there are no files train-images* and train-labels*, no train.npz, no *_train.data and "
            "*_train.labels, no train.csv, no train.parquet, no train.tsv and no folders of "
            "pictures"
        )
    if len(told) + len(plain) > 1:
        raise FormatError("it has files of several formats: leave those of one there")
    if told:
        return told[0].read_folder(folder, reading)
    if reading != AS_IT_IS:
        raise FormatError(
            "it is no table, so no column of it has a name"
            if reading.has_columns
            else "it is no folder of pictures, so nothing can be resized"
        )
    return plain[0](folder)


def summary_of(path: Path, root: Path) -> Summary:
    """What can be said of a folder whose files tell too little.

    Raises:
        FormatError: one cannot be read.
    """
    folder = Folder(path, root)
    (told,) = _told(folder)
    return told.summary(folder)


def described(path: Path, root: Path) -> tuple[FilesKind, tuple[ColumnCard, ...] | None]:
    """Of what kind a folder's files are, and the columns of a table, see `columns_of`.

    Raises:
        FormatError: one cannot be read.
    """
    told = _told(folder := Folder(path, root))
    if not told:
        return "other", None
    if told[0].sheets is None:
        return "pictures", None
    return "table", columns_of(told[0].sheets(folder))


def _told(folder: Folder) -> list[_Told]:
    found = [told for is_there, told in _TOLD.items() if is_there(folder.names)]
    is_plain = any(is_there(folder.names) for is_there in _FORMATS)
    return [_IMAGES] if not found and not is_plain and folder.folders else found

"""Which format a folder's files are of, and the arrays in them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from ridgeline.search.tasks.formats import data_labels, idx, npz, parquet, table, text
from ridgeline.search.tasks.formats.base import FormatError, RawParts
from ridgeline.search.tasks.formats.files import Folder
from ridgeline.search.tasks.formats.sheet import Sheet
from ridgeline.search.tasks.settings import AS_NAMED, Roles

_FORMATS: dict[Callable[[Sequence[str]], bool], Callable[[Folder], RawParts]] = {
    format.is_there: format.read_folder for format in (idx, npz, data_labels, text)
}


class _Tables(NamedTuple):
    """A format of tables."""

    is_there: Callable[[Sequence[str]], bool]
    read_folder: Callable[[Folder, Roles], RawParts]
    sheets: Callable[[Folder], list[Sheet]]


_TABLES = (
    _Tables(table.is_there, table.read_folder, table.sheets),
    _Tables(parquet.is_there, parquet.read_folder, parquet.sheets),
)
"""Formats whose columns have names, so that they can be taken for what a study says."""


def read_folder(path: Path, root: Path, roles: Roles = AS_NAMED) -> RawParts:
    """The arrays of a folder, which must lie under `root` with all its files, links followed.

    Raises:
        NeedsRoles: other `roles` are needed than are given.
        FormatError: its files are malformed, of no known format, or of several.
    """
    folder = Folder(path, root)
    tables = [format for format in _TABLES if format.is_there(folder.names)]
    others = [read for is_there, read in _FORMATS.items() if is_there(folder.names)]
    if not tables and not others:
        raise FormatError(
            "there are no files train-images* and train-labels*, no train.npz, no *_train.data and "
            "*_train.labels, no train.csv, no train.parquet and no train.tsv"
        )
    if len(tables) + len(others) > 1:
        raise FormatError("it has files of several formats: leave those of one there")
    if tables:
        return tables[0].read_folder(folder, roles)
    if roles != AS_NAMED:
        raise FormatError("it is no table, so no column of it has a name")
    return others[0](folder)


def sheets_of(path: Path, root: Path) -> list[Sheet]:
    """The files of a folder that has a table, the train part first; each can be read once.

    Raises:
        FormatError: one cannot be read.
    """
    folder = Folder(path, root)
    (format,) = (format for format in _TABLES if format.is_there(folder.names))
    return format.sheets(folder)

"""Tables in Apache Parquet: train.parquet, and test.parquet where there is a test part.

Columns are those of `table`, and values are read as if they stood in its files.  pyarrow reads
them; it is imported when there is such a file, since not everybody has it.

Files come from anywhere: what their metadata promise is held against limits before it is unpacked.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from ridgeline.search.tasks.formats.base import FormatError, RawParts, Summary, not_installed
from ridgeline.search.tasks.formats.features import MAX_CELLS
from ridgeline.search.tasks.formats.files import Folder, regular
from ridgeline.search.tasks.formats.sheet import Sheet, check_names, summary_of
from ridgeline.search.tasks.formats.table import read_sheets
from ridgeline.search.tasks.settings import Reading

_TRAIN, _TEST = "train.parquet", "test.parquet"

_BATCH_ROWS = 1_024
_MAX_GROUP_BYTES = 2**32
"""Of a row group, unpacked, of which one at a time is in memory."""


def is_there(names: Sequence[str]) -> bool:
    """Whether names of files are those of this format."""
    return _TRAIN in names or _TEST in names


def read_folder(folder: Folder, reading: Reading) -> RawParts:
    """The features of a folder's tables, float64, and what is to be learned.

    Raises:
        TellsTooLittle: a study has to say more of it than `reading` does.
        FormatError: a file is missing, outside of the root or malformed, they disagree, or pyarrow
            is not installed.
    """
    return read_sheets(sheets(folder), reading)


def summary(folder: Folder) -> Summary:
    """What can be said of a folder's tables when nobody says what is learned.

    Raises:
        FormatError: as of `read_folder`.
    """
    return summary_of(sheets(folder))


def sheets(folder: Folder) -> list[Sheet]:
    """The train part, and the test part where there is one."""
    return [_sheet(path) for path in folder.parts(_TRAIN, _TEST) if path is not None]


def _sheet(path: Path) -> Sheet:
    with _opened(path) as file:
        schema, metadata = file.schema_arrow, file.metadata
        names = [name.strip() for name in schema.names]
        check_names(path.name, names)
        for name, kind in zip(names, schema.types, strict=True):
            _check_kind(f"{path.name}, column {name}", kind)
        if metadata.num_rows * len(names) > MAX_CELLS:
            raise FormatError(
                f"{path.name} is too large: {metadata.num_rows} rows of {len(names)} columns"
            )
        for group in range(metadata.num_row_groups):
            if metadata.row_group(group).total_byte_size > _MAX_GROUP_BYTES:
                raise FormatError(
                    f"{path.name} has a row group of more than {_MAX_GROUP_BYTES} bytes"
                )

    def rows() -> Iterator[tuple[int, list[str]]]:
        row = 0
        with _opened(path) as file:
            for batch in file.iter_batches(_BATCH_ROWS, use_threads=False):
                for values in zip(*map(_texts, batch.columns), strict=True):
                    row += 1
                    yield row, list(values)

    return Sheet(path.name, names, rows(), lambda row: f"{path.name}, row {row}")


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """A `pyarrow.parquet.ParquetFile`.

    Raises:
        FormatError: within the block too, it cannot be read.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as exc:
        raise not_installed(path.name, "pyarrow") from exc
    try:
        file: IO[bytes]
        with open(path, "rb", opener=regular) as file, parquet.ParquetFile(file) as table:
            yield table
    except FormatError:
        raise
    except pyarrow.ArrowException as exc:
        reason = str(exc).partition("\n")[0]
        raise FormatError(f"{path.name} is not a whole Parquet file: {reason}") from exc
    except OSError as exc:
        raise FormatError(f"{path.name} cannot be read: {exc.strerror or exc}") from exc


def _check_kind(where: str, kind: Any) -> None:
    from pyarrow import types

    if types.is_dictionary(kind):
        kind = kind.value_type
    known = (
        types.is_boolean, types.is_integer, types.is_floating, types.is_decimal, types.is_date,
        types.is_timestamp, types.is_string, types.is_large_string, types.is_string_view,
        types.is_null,
    )  # fmt: skip
    if not any(is_kind(kind) for is_kind in known):
        raise FormatError(f"{where}: {kind} is no type of numbers, texts or dates")


def _texts(column: Any) -> list[str]:
    """The values of a column as a CSV file would have them; empty where one is missing."""
    import pyarrow
    from pyarrow import types

    if types.is_dictionary(column.type):
        column = column.dictionary_decode()
    kind = column.type
    if types.is_boolean(kind):
        column = column.cast(pyarrow.int8())
    elif types.is_timestamp(kind):  # Python's have no nanoseconds
        column = column.cast(pyarrow.timestamp("us", kind.tz), safe=False)
    is_date = types.is_date(kind) or types.is_timestamp(kind)
    write = (lambda value: value.isoformat()) if is_date else str
    return ["" if value is None else write(value) for value in column.to_pylist()]

"""Whether a study can be trained on a data set, as far as it is known of that without its rows."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from ridgeline.search.spec import StudySpec
from ridgeline.search.tasks.base import DataChoice, EngineTask
from ridgeline.search.tasks.data import called
from ridgeline.search.tasks.dividing import num_needed
from ridgeline.search.tasks.formats.features import MAX_CATEGORIES
from ridgeline.search.tasks.kinds import (
    Classes,
    ColumnUse,
    Features,
    Image,
    Targets,
    Vector,
)
from ridgeline.search.tasks.registry import problems_by
from ridgeline.search.tasks.settings import AS_IT_IS, ClassWeights
from ridgeline.search.tasks.splits import rows_needed
from ridgeline.service.protocol import ColumnInfo, DatasetInfo

_NEEDS: dict[ColumnUse, str] = {
    "label": "which takes the name of a class in each row, two classes at least, and in the test "
    "part none that no row of the train part has",
    "target": "which takes a number in each row, not the same in all",
    "group": "which takes a text in each row, and in the test part none that a row of the train "
    "part has",
    "time": "which takes a number in each row, or a date in each, and in the test part later ones "
    "than in the train part",
}
_FIELDS: dict[ColumnUse, str] = {
    "label": "task.label",
    "target": "task.target",
    "group": "task.split.column",
    "time": "task.split.column",
}
_LEARNED = ("class", "label", "target")
"""Names of columns that a table says so that it is learned."""

_MOST_LISTED = 20


def unfit(spec: StudySpec, data: DatasetInfo) -> Iterator[tuple[str, str]]:
    """Why a study cannot be trained on a data set, by field."""
    task = spec.definition
    choice = task.data(spec.task)
    if choice is None:
        return
    yield from _misread(choice, data)
    yield from _undivided(choice, data)
    if not isinstance(task, EngineTask):
        return
    features = _features(choice, data)
    targets = _targets(choice, data, task.class_weights(spec.task))
    if features is not None and targets is not None:
        kinds = features, targets
        yield from problems_by(task, lambda: task.data_problems(spec.task, spec, *kinds))


def misread_built_in(spec: StudySpec) -> Iterator[tuple[str, str]]:
    """What a study cannot say of a data set of scikit-learn's, whoever has it."""
    choice = spec.definition.data(spec.task)
    if choice is not None:
        yield from _not_of_files(choice, is_table=False, has_pictures=False)


def _misread(choice: DataChoice, data: DatasetInfo) -> Iterator[tuple[str, str]]:
    """What the files are not that the study says of them."""
    if choice.reading == AS_IT_IS:
        if data.needs is not None:
            yield "task.dataset", data.needs
        return
    if data.files is not None:
        yield from _not_of_files(
            choice, is_table=data.files == "table", has_pictures=data.files == "pictures"
        )
    if data.columns is None:
        return
    columns = {column.name: column for column in data.columns}
    for use, name in _named(choice):
        if name not in columns:
            yield _FIELDS[use], f"the data set {data.name} has no column {name!r}; {_list(columns)}"
        elif use not in columns[name].uses:
            yield _FIELDS[use], f"{name!r} cannot be the {use}, {_NEEDS[use]}"
    key, learned = choice.reading.key, choice.label or choice.target
    if learned is None:
        told = [name for name in columns if name in _LEARNED]
        left = [name for name in told if name != key]
        if key in told and not left:
            reason = f"{key!r} is what is learned, unless task.label or task.target says"
            yield "task.split.column", f"{reason} another column"
        elif len(left) != 1:
            yield "task.dataset", data.needs or "task.label or task.target has to name a column"
        learned = left[0] if len(left) == 1 else None
    elif learned == key:
        yield "task.split.column", f"{key!r} is to be learned, so no split can go by it"
    for name, column in columns.items():
        if learned is not None and name not in (learned, key) and "feature" not in column.uses:
            reason = f"its column {name!r} cannot be a feature, which takes numbers alone, or names"
            yield "task.dataset", f"{reason} of categories alone, {MAX_CATEGORIES} at most"


def _not_of_files(
    choice: DataChoice, *, is_table: bool, has_pictures: bool
) -> Iterator[tuple[str, str]]:
    if not is_table:
        for use, _ in _named(choice):
            yield _FIELDS[use], f"names a column, and the data set {choice.dataset} is no table"
    if choice.images is not None and not has_pictures:
        reason = f"must be left out: the data set {choice.dataset} is no folder of pictures"
        yield "task.images", reason


def _named(choice: DataChoice) -> Iterator[tuple[ColumnUse, str]]:
    """The columns that a study names, and for what."""
    reading = choice.reading
    uses: dict[ColumnUse, str | None] = {
        "label": reading.label,
        "target": reading.target,
        "group": reading.group,
        "time": reading.time,
    }
    yield from ((use, name) for use, name in uses.items() if name is not None)


def _undivided(choice: DataChoice, data: DatasetInfo) -> Iterator[tuple[str, str]]:
    """Parts of the split that would have no rows."""
    split, has_test_part = choice.split, data.has_test_part
    needed = num_needed(split, has_test_part=has_test_part)
    if split.kind in ("group", "time") and split.column is not None:
        key = _column(data, split.column)
        if key is not None and key.num_values is not None and key.num_values < needed:
            reason = f"has {key.num_values} of the {needed} {split.kind}s needed"
            yield "task.split.column", f"{reason} to stand in every part of the split"
        return
    if not has_test_part and data.num_rows < needed:
        reason = f"has {data.num_rows} of the {needed} rows needed"
        yield "task.dataset", f"{reason} to stand in every part of the split"
        return
    smallest, rarest = _smallest_class(choice, data)
    of_each = rows_needed(split, has_test_part=has_test_part)
    if of_each is not None and smallest is not None and smallest < of_each:
        which = "" if rarest is None else f", {called(rarest)},"
        reason = f"its smallest class{which} has {smallest} of the {of_each} rows needed"
        yield "task.dataset", f"{reason}, one for each part of the split"


def _smallest_class(choice: DataChoice, data: DatasetInfo) -> tuple[int | None, str | None]:
    """The rows of the rarest class that is learned, and its name, where they are known."""
    if choice.label is not None:
        column = _column(data, choice.label)
        return (None, None) if column is None else (column.smallest_class, column.rarest_class)
    return (None, None) if choice.target is not None else (data.smallest_class, data.rarest_class)


def _targets(choice: DataChoice, data: DatasetInfo, weights: ClassWeights | None) -> Targets | None:
    """What is learned; of classes that nobody has counted as many as there are weights for."""
    column = None if choice.label is None else _column(data, choice.label)
    if column is not None and column.num_values is not None:
        return Classes(max(2, column.num_values))
    if choice.label is not None and isinstance(weights, tuple):
        return Classes(len(weights))
    return choice.targets(data.targets)


def _features(choice: DataChoice, data: DatasetInfo) -> Features | None:
    """What a row is, as far as tasks differ in it."""
    if choice.images is not None and data.needs is not None:
        return choice.features(Image(1, 1, 1))
    if choice.reading.has_columns or data.needs is not None:
        return Vector(data.num_features)
    return data.features


def _column(data: DatasetInfo, name: str) -> ColumnInfo | None:
    return next((column for column in data.columns or () if column.name == name), None)


def _list(names: Collection[str]) -> str:
    listed = [*names][:_MOST_LISTED]
    others = " and others" if len(names) > _MOST_LISTED else ""
    return f"it has {', '.join(map(repr, listed))}{others}"

"""The examination of a database: what must hold of it, and what of it does not.

Each study is looked at in one consistent view of the database.  So studies that are busy meanwhile
give no false alarm, nobody waits, and nothing is locked.
"""

from __future__ import annotations

import glob
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import TypeAdapter, ValidationError

from ridgeline.search.comparison import ComparisonSpec
from ridgeline.search.fields import Real, Whole
from ridgeline.search.measures import Measures
from ridgeline.search.warm_start import TRIALS
from ridgeline.service import projection, tokens, views, warm_start
from ridgeline.service.artifacts.base import ArtifactError, ArtifactStore, Content
from ridgeline.service.ends import study_problems, trial_problems
from ridgeline.service.errors import Unavailable
from ridgeline.service.files import check_file, check_folder
from ridgeline.service.findings import BY_HAND, Check, Finding
from ridgeline.service.settings import Settings
from ridgeline.service.store import tables
from ridgeline.service.store.checks import kept_metrics, study_findings
from ridgeline.service.store.engine import sqlite_file
from ridgeline.service.store.health import FILE, SCHEMA, database_findings
from ridgeline.service.store.rows import CheckpointRow, StudyRow, WorkerRow
from ridgeline.service.store.session import Store, Transaction
from ridgeline.service.store.values import Shapes, misfits_of_study
from ridgeline.service.worker.cache import default_folder

Say = Callable[[str], None]
"""Shows how far the examination is."""

_CHUNK = 1_000
"""Trials read at once."""

_LEASES_OF_GRACE = 3
"""After a restart or a change of its clock, the service lets leases begin anew."""

_FOLDERS = Check(
    "folders",
    "{}",
    "Run this as the user who runs the service. `chown` gives a file or folder to them, `chmod "
    "go-w` keeps others from changing it, and `chmod o-r` from reading it; see docs/settings.md.",
)
_SPEC = Check("spec", "the specs of the studies with the ids {} cannot be read", BY_HAND)
_SAME_STORE = "See that RIDGELINE_ARTIFACTS is what the service has, and that it can be read here."
_NO_FILES = Check("artifacts", "{}", _SAME_STORE)
_DAMAGED_FILES = Check(
    "artifacts",
    "the files {} are missing, or not as they were kept",
    f"{_SAME_STORE} If it is, look after its disk: the service notices such a file when it is "
    "needed, and the run goes on from the one before or starts over.",
)
_STRANGE_FILES = Check(
    "artifacts",
    "the files {} are in no row of this database",
    "They are those of another service, or newer than the backup that this database was restored "
    "from. Delete them where nobody needs them.",
)
_ARMS = Check("comparisons", "the comparisons {} lack the study that tunes an arm", BY_HAND)
_SOURCES = Check(
    "sources", "the trials that {} has taken over are not those it began with", BY_HAND
)
_WORKERS = Check("workers", "the workers {} cannot be shown as they are stored", BY_HAND)
_COPY = Check(
    "optuna-copy",
    "its copy in Optuna's tables differs from it in {}",
    "`ridgeline doctor --repair` makes the copy anew. It is for reading: open it as the README's "
    "example does, in a way through which nothing can be written.",
)

_NUMBERS: TypeAdapter[Any] = TypeAdapter(dict[str, Real])
_COUNTS: TypeAdapter[Any] = TypeAdapter(dict[str, Whole])
_SHAPES: Shapes = {
    tables.trials.c.config: TypeAdapter(dict[str, Any]),
    tables.trials.c.given: TypeAdapter(list[str]),
    tables.sources.c.parameters: TypeAdapter(list[str]),
    tables.sources.c.trials: TRIALS,
    tables.runs.c.metrics: _NUMBERS,
    tables.runs.c.measures: TypeAdapter(Measures),
    tables.reports.c.metrics: _NUMBERS,
    tables.workers.c.devices: TypeAdapter(list[dict[str, Any]]),
    tables.workers.c.tasks: TypeAdapter(list[str]),
    tables.workers.c.datasets: TypeAdapter(list[dict[str, Any]]),
    tables.workers.c.idle_slots: _COUNTS,
    tables.workers.c.restarts: _COUNTS,
    tables.comparisons.c.spec: TypeAdapter(ComparisonSpec),
}
"""Of the JSON in the tables; what else it must be, the checks say that read it."""


def examine(
    store: Store,
    artifacts: ArtifactStore,
    settings: Settings,
    token_dir: Path | None = None,
    say: Say = lambda _: None,
) -> Iterator[Finding]:
    """Everything that is wrong with the folders here, with a database, study by study, and with the
    files that it names.

    Raises:
        Unavailable: the database cannot be reached.
    """
    yield from examine_folders(settings, sqlite_file(store.url), token_dir)
    say("the database")
    with store.reading() as tx:
        findings = list(examine_database(tx))
        yield from findings
        if not _can_be_read(findings):
            return
        study_ids = tx.studies.ids()
    for study_id in study_ids:
        with store.reading() as tx:
            yield from examine_study(tx, study_id, settings, say)
    say("the artifact store")
    yield from examine_artifacts(store, artifacts)


def _can_be_read(findings: Sequence[Finding]) -> bool:
    """Whether the studies can be examined, for all that is wrong with the database."""
    return not any(finding.check in (FILE, SCHEMA, projection.TABLES) for finding in findings)


def examine_folders(
    settings: Settings, database: Path | None, token_dir: Path | None
) -> Iterator[Finding]:
    """Whether others may change what the service stores, runs and listens on here.

    Args:
        database: the file of an SQLite database.
        token_dir: where `migrate` leaves tokens.
    """
    folders = [settings.home, settings.cache_dir, settings.artifact_folder]
    with suppress(RuntimeError):  # a user without a home has no cache
        folders.append(default_folder())
    files = [(settings.home / "worker.token", True)]
    if database is not None:
        folders.append(database.parent)
        files += [(path, False) for path in database.parent.glob(f"{glob.escape(database.name)}*")]
    if settings.dashboard_socket is not None:
        folders.append(settings.dashboard_socket.parent)
        files.append((settings.dashboard_socket, True))
    if token_dir is not None:
        files += [(token_dir / f"{scope}.token", True) for scope in ("admin", "worker")]
    looks: list[Callable[[], None]] = [
        partial(check_folder, folder) for folder in dict.fromkeys(folders) if folder is not None
    ]
    looks += [partial(check_file, path, is_secret=is_secret) for path, is_secret in files]
    for look in looks:
        try:
            look()
        except FileNotFoundError:
            pass  # it was not needed yet
        except OSError as exc:
            yield _FOLDERS.found([exc])


def examine_database(tx: Transaction) -> Iterator[Finding]:
    """What is wrong but for the studies."""
    findings = list(
        database_findings(tx.connection, scopes=tokens.SCOPES, now=tx.now, shapes=_SHAPES)
    )
    yield from findings
    if any(finding.check in (FILE, SCHEMA) for finding in findings):
        return
    yield from projection.examine_tables(tx.connection)
    if not any(finding.wrong.startswith(tables.workers.name) for finding in findings):
        unreadable = [worker.id for worker in tx.workers.all() if not _can_be_shown(worker)]
        if unreadable:
            yield _WORKERS.found(unreadable)
    if not any(finding.wrong.startswith(tables.comparisons.name) for finding in findings):
        lacking = list(_comparisons_without_a_search(tx))
        if lacking:
            yield _ARMS.found(lacking)


def _comparisons_without_a_search(tx: Transaction) -> Iterator[str]:
    rows = tx.comparisons.page(limit=tx.comparisons.num_all(), below_id=None)
    studies_of = tx.comparisons.studies_of([row.id for row in rows])
    for row in rows:
        if set(row.spec.arms) != {one.arm for one in studies_of[row.id] if one.winner is None}:
            yield row.name


def _can_be_shown(worker: WorkerRow) -> bool:
    try:
        views.worker(worker, {})
    except ValidationError:
        return False
    return True


def examine_study(
    tx: Transaction, study_id: int, settings: Settings, say: Say = lambda _: None
) -> Iterator[Finding]:
    """What is wrong with one study, and with its copy in Optuna's tables.

    The copy is compared only where nothing is wrong with the study itself: it may hold what the
    study has lost, and nobody is to be told to make it anew then.
    """
    is_good = True
    for finding in _source_findings(tx, study_id, settings, say):
        yield finding
        is_good = False
    if not is_good:
        return
    study = tx.studies.get(study_id)
    if study is None:
        return  # it was deleted meanwhile
    say(f"study {study.name}: its copy in Optuna's tables")
    differences = _differences(tx, study_id)
    if differences:
        yield _COPY.found(differences, study=study.name)


class Repair(NamedTuple):
    """What became of the copy of a study that was not as it should be."""

    study: str
    obstacles: list[Finding]
    """Why it was left alone: what is wrong with the study itself.  None: it was made anew."""


def repair(store: Store, settings: Settings) -> Iterator[Repair]:
    """Make every copy in Optuna's tables anew that is not as it should be.

    A copy of a study with which something is wrong itself is left as it is.  Nothing is written to
    a database whose file or tables are damaged.

    Raises:
        Unavailable: the database cannot be reached.
    """
    with store.reading() as tx:
        if not _can_be_read(list(examine_database(tx))):
            return
        study_ids = tx.studies.ids()
    for study_id in study_ids:
        with store.reading() as tx:
            if not _differences(tx, study_id):
                continue
        with store.transaction() as tx:
            name = tx.studies.name_of(study_id)
            if name is None:
                continue  # it was deleted meanwhile
            obstacles = list(_source_findings(tx, study_id, settings, lambda _: None))
            if not obstacles:
                tx.studies.lock(study_id)
                projection.rebuild(tx.connection, study_id)
        yield Repair(name, obstacles)


def _source_findings(
    tx: Transaction, study_id: int, settings: Settings, say: Say
) -> Iterator[Finding]:
    """What is wrong with a study in our own tables."""
    misfits = list(misfits_of_study(tx.connection, study_id, _SHAPES))
    yield from misfits
    if misfits:
        return  # the rows cannot be read
    try:
        study = tx.studies.get(study_id)
    except ValidationError:
        yield _SPEC.found([study_id])
        return  # nothing of it can be understood
    if study is None:
        return
    say(f"study {study.name}")
    grace_seconds = _LEASES_OF_GRACE * settings.lease_seconds
    yield from study_findings(tx.connection, study, grace_seconds=grace_seconds)
    if not warm_start.is_whole(tx, study):
        yield _SOURCES.found([study.name])
    yield from _end_findings(tx, study, say)


def examine_artifacts(store: Store, artifacts: ArtifactStore) -> Iterator[Finding]:
    """What is wrong with the files of the artifact store; each is read as a whole."""
    try:
        stored = set(artifacts.keys())
        with store.reading() as tx:
            rows = tx.artifacts.whole()
            strange = stored - tx.artifacts.locations()  # a file is there after its row
        if strange and (strange := strange.intersection(artifacts.keys())):
            yield _STRANGE_FILES.found(sorted(strange))
        damaged = {row.location for row in rows if not _is_sound(row, artifacts)}
        if damaged:
            with store.reading() as tx:  # others may have been deleted meanwhile
                damaged.intersection_update(row.location for row in tx.artifacts.whole())
        if damaged:
            yield _DAMAGED_FILES.found(sorted(damaged))
    except Unavailable as exc:
        yield _NO_FILES.found([exc])


def _is_sound(row: CheckpointRow, artifacts: ArtifactStore) -> bool:
    try:
        artifacts.get(row.location, Content(row.num_bytes, row.sha256)).close()
    except ArtifactError:
        return False
    return True


def _differences(tx: Transaction, study_id: int) -> list[str]:
    """Where the copy of a study differs from it; also that one of them cannot be read."""
    try:
        return projection.compare(tx.connection, study_id)
    except (LookupError, ValueError, TypeError, AttributeError, ArithmeticError) as exc:
        return [f"what cannot be read ({type(exc).__name__}: {exc})"]


def _end_findings(tx: Transaction, study: StudyRow, say: Say) -> Iterator[Finding]:
    wrong: dict[Check, list[str]] = defaultdict(list)
    num_failed = sum(tx.trials.num_failed(study.id).values())
    for check, thing in study_problems(study, num_failed=num_failed):
        wrong[check].append(thing)
    number = -1
    while trials := tx.trials.page(study.id, limit=_CHUNK, above_number=number):
        number = trials[-1].number
        runs = tx.runs.of_trials([trial.id for trial in trials])
        kept = kept_metrics(tx.connection, [run.id for of_one in runs.values() for run in of_one])
        for trial in trials:
            for check, thing in trial_problems(study.spec, trial, runs[trial.id], kept):
                wrong[check].append(thing)
        say(f"study {study.name}: trial {number} of {study.next_number}")
    for check, things in wrong.items():
        yield check.found(things, study=study.name)

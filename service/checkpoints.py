"""Checkpoints of runs: how they come in and go out, and what becomes of their files.

The row of a checkpoint is there before its file and until after it (see `tables.artifacts`).  So
whatever fails and whenever, every file is named by a row, and what is to be deleted is found by it;
no file is deleted that no row names.  Each upload has a key of its own, so none replaces another.

The newest two whole checkpoints of a run are kept.  Where the newest turns out to be damaged, the
run goes on from the one before.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import BinaryIO

from ridgeline.service import logs, metrics, workers
from ridgeline.service.artifacts.base import ArtifactStore, Content, Damaged, Missing
from ridgeline.service.errors import Conflict, InvalidInput, NotFound, StaleAttempt, Unavailable
from ridgeline.service.ledger import Ledger
from ridgeline.service.lifecycle import OPEN_STUDY
from ridgeline.service.store.rows import CheckpointRow, RunRow
from ridgeline.service.store.session import Store, Transaction

NUM_KEPT = 2

DRAFT_SECONDS = 3_600.0
"""An upload that is not whole after so long is over; see `ridgeline.service.api.uploads`."""

_SWEPT_AT_ONCE = 100

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Holder:
    """Who says to hold which attempt at which run."""

    worker_id: str
    run_id: int
    attempt: int


def announce(
    store: Store, holder: Holder, *, epoch: int, program: str, content: Content
) -> tuple[CheckpointRow, bool]:
    """Begin to take a checkpoint; the flag says that it is there already, from an earlier call.

    Raises:
        NotFound: there is no such worker or run.
        Conflict: the worker was given up; the epoch was not reported yet; or the run is trained by
            another program.
        StaleAttempt: the run has ended, or is at another attempt or worker.
    """
    with store.transaction() as tx:
        run = _held(tx, holder)
        if run.program != program:
            raise Conflict(f"run {run.id} is trained by {run.program}, not by {program}")
        if not tx.runs.reported_epochs([run.id], epoch, epoch):
            raise Conflict(f"epoch {epoch} of run {run.id} was not reported yet; report it first")
        for row in tx.artifacts.checkpoints([run.id]).get(run.id, ()):
            if (row.epoch, row.sha256) == (epoch, content.sha256):
                return row, True
        draft = tx.artifacts.draft_checkpoint(
            run_id=run.id,
            attempt=holder.attempt,
            epoch=epoch,
            program=program,
            num_bytes=content.num_bytes,
            sha256=content.sha256,
            location=f"checkpoints/{run.id}-{holder.attempt}-{epoch}-{secrets.token_hex(8)}",
            created_at=tx.now,
        )
        return draft, False


def keep(
    store: Store,
    artifacts: ArtifactStore,
    holder: Holder,
    draft: CheckpointRow,
    chunks: Iterable[bytes],
) -> None:
    """Take the content of a checkpoint; it is whole once this returns.

    Raises:
        InvalidInput: the chunks are not the content that was announced.
        Unavailable: the artifact store cannot keep it now.
    And what `announce` raises, where that has come true meanwhile.
    """
    try:
        try:
            artifacts.put(draft.location, chunks, Content(draft.num_bytes, draft.sha256))
        except Damaged as exc:
            raise InvalidInput([("content-digest", f"is not that of the body: {exc}")]) from exc
        with store.transaction() as tx:
            _held(tx, holder)
            if not tx.artifacts.complete(draft.id):
                raise Conflict("the checkpoint came too late")
            newest_first = tx.artifacts.checkpoints([draft.run_id])[draft.run_id]
            tx.artifacts.doom([row.id for row in newest_first[NUM_KEPT:]])
    except BaseException:
        with suppress(Unavailable):
            with store.transaction() as tx:
                is_known = tx.artifacts.doom([draft.id])
            if not is_known:  # it took longer than a draft has, so that no row names its file
                artifacts.delete(draft.location)
        raise


def newest(
    store: Store, artifacts: ArtifactStore, holder: Holder
) -> tuple[CheckpointRow, BinaryIO]:
    """The newest checkpoint of a run that is as it was kept, and its content.

    Those that are not are given up.

    Raises:
        NotFound: there is no such worker or run, or it has no such checkpoint.
        Conflict, StaleAttempt: as `announce` does.
        Unavailable: the artifact store cannot be read now.
    """
    while True:
        with store.transaction() as tx:
            run = _held(tx, holder)
            row = tx.artifacts.newest_checkpoints([run.id]).get(run.id)
        if row is None:
            raise NotFound(f"run {run.id} has no checkpoint")
        try:
            return row, artifacts.get(row.location, Content(row.num_bytes, row.sha256))
        except (Missing, Damaged) as exc:
            with logs.about(run=run.id):
                log.warning("the checkpoint of epoch %d cannot be used: %s", row.epoch, exc)
            with store.transaction() as tx:
                tx.artifacts.doom([row.id])


def sweep(store: Store, artifacts: ArtifactStore) -> int:
    """Delete files that are not needed any more; any number of api processes may call it at once.

    Returns how many files are gone; there may be more.

    Raises:
        Unavailable: the database or the artifact store cannot do it now.
    """
    with store.reading() as tx:
        if not tx.artifacts.any_to_sweep(tx.now - DRAFT_SECONDS):
            return 0
    with store.transaction() as tx:
        tx.artifacts.doom_drafts(tx.now - DRAFT_SECONDS)
        doomed = tx.artifacts.doomed(limit=_SWEPT_AT_ONCE)
    deleted = []
    failure: Unavailable | None = None
    for artifact_id, location in doomed:
        try:
            artifacts.delete(location)
        except Unavailable as exc:
            failure = exc  # one that cannot be deleted is not to keep the others
        else:
            deleted.append(artifact_id)
    with store.transaction() as tx:
        tx.artifacts.forget(deleted)
    if failure is not None:
        raise failure
    return len(deleted)


def _held(tx: Transaction, holder: Holder) -> RunRow:
    """The run, under its study's lock, as its holder may speak of it; the rules are those of sync.

    Raises what `announce` does.
    """
    worker = tx.workers.lock(holder.worker_id)
    if worker is None:
        raise NotFound(f"no worker {holder.worker_id} is registered; register again")
    if worker.state != "LIVE":
        metrics.REFUSED_WRITES.labels("worker_given_up").inc()
        raise Conflict(f"worker {worker.id} is {worker.state}; register again")
    study_id = tx.runs.studies_of([holder.run_id]).get(holder.run_id)
    ledger = None if study_id is None else Ledger.of_found(tx, study_id)
    if ledger is None:
        metrics.REFUSED_WRITES.labels("unknown_run").inc()
        raise NotFound(f"there is no run {holder.run_id}")
    run = tx.runs.get([holder.run_id])[holder.run_id]
    if not workers.holds(worker, run, holder.attempt):
        metrics.REFUSED_WRITES.labels(workers.kind_of_void(run)).inc()
        raise StaleAttempt(workers.why_void(run))
    if ledger.study.state not in OPEN_STUDY:
        metrics.REFUSED_WRITES.labels("study_ended").inc()
        raise StaleAttempt(f"the study is {ledger.study.state}")
    return run

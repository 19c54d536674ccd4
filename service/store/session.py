"""The database: engines, transactions, and the only commit of the service."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager
from functools import cached_property
from time import monotonic

from prometheus_client import Counter as Metric
from sqlalchemy import Connection, func, select, text
from sqlalchemy.engine import make_url

from ridgeline.service import logs, metrics
from ridgeline.service.clock import Clock
from ridgeline.service.store.artifacts import Artifacts
from ridgeline.service.store.census import Census
from ridgeline.service.store.comparisons import Comparisons
from ridgeline.service.store.engine import (
    BUSY_TIMEOUT_SECONDS,
    READ_ONLY,
    open_engine,
    open_turn_engine,
)
from ridgeline.service.store.failures import outage_behind, translated
from ridgeline.service.store.histories import Histories
from ridgeline.service.store.idempotency import IdempotencyKeys
from ridgeline.service.store.rules import RulesBook
from ridgeline.service.store.runs import Runs
from ridgeline.service.store.sources import SourceHistories, Sources
from ridgeline.service.store.studies import Studies
from ridgeline.service.store.tokens import Tokens
from ridgeline.service.store.trials import Trials
from ridgeline.service.store.turns import Turns
from ridgeline.service.store.workers import Workers

log = logging.getLogger(__name__)

_TURN_LOCKS = 0x524C
"""The first key of our advisory locks with two keys."""

Audience = str | None
"""Who may start runs of a study: programs that ask for trials of it by its name, or workers."""

Projector = Callable[[Connection, int], None]
"""Copies what changed in one study, given by id, into Optuna's tables; that it is gone, too."""


class DatabaseClock:
    """The database's own clock: machines' clocks differ, the database has one."""

    def now(self, connection: Connection) -> float:
        if connection.dialect.name == "sqlite":
            # julianday counts days from noon on 24 November 4714 BC; milliseconds survive.
            query = "SELECT (julianday('now') - 2440587.5) * 86400.0"
        else:
            query = "SELECT extract(epoch FROM clock_timestamp())"
        return float(connection.execute(text(query)).scalar_one())


class Transaction:
    """One transaction and the tables seen through it."""

    def __init__(self, connection: Connection, clock: Clock) -> None:
        self.connection = connection
        self._clock = clock
        self.comparisons = Comparisons(connection)
        self.studies = Studies(connection)
        self.sources = Sources(connection)
        self.trials = Trials(connection)
        self.runs = Runs(connection)
        self.artifacts = Artifacts(connection)
        self.workers = Workers(connection)
        self.tokens = Tokens(connection, lambda: self.now)
        self.idempotency = IdempotencyKeys(connection, lambda: self.now)
        self.census = Census(connection)
        self._offers: Counter[tuple[int, Audience]] = Counter()
        self._counts: Counter[Metric] = Counter()

    def count(self, metric: Metric, number: int = 1) -> None:
        """Count something that is so once this is committed."""
        self._counts[metric] += number

    def offer(self, study_id: int, audience: Audience, num_runs: int = 1) -> None:
        """Once this is committed there are so many more runs of a study to start, or room for them.

        Args:
            num_runs: negative where so many were handed out, those offered first.
        """
        key = study_id, audience
        self._offers[key] = max(0, self._offers[key] + num_runs)

    def note_commit(self) -> None:
        """Count what was to be counted."""
        for metric, number in self._counts.items():
            metric.inc(number)

    @property
    def offered_to(self) -> Set[Audience]:
        """Who may find runs to start that were not there before."""
        return {audience for (_, audience), num_runs in self._offers.items() if num_runs}

    @cached_property
    def now(self) -> float:
        """The transaction's time, by the store's clock: that at which it was first asked for."""
        return self._clock.now(self.connection)


class Store:
    """The service's database: SQLite or PostgreSQL, by URL.

    Args:
        url: a SQLAlchemy URL, `sqlite:///file` or `postgresql+psycopg://…`.
        clock: what `Transaction.now` goes by.
        project: copies a changed study into Optuna's tables, within the same transaction.
    """

    def __init__(self, url: str, *, clock: Clock, project: Projector) -> None:
        self.url = make_url(url)
        self.histories = Histories()
        self.sources = SourceHistories()
        self.rules = RulesBook()
        self._engine = open_engine(self.url)
        is_sqlite = self.url.get_backend_name() == "sqlite"
        self._turn_engine = None if is_sqlite else open_turn_engine(self.url)
        self._turns = Turns(BUSY_TIMEOUT_SECONDS)
        self._clock = clock
        self._project = project
        self._on_offer: list[Callable[[Set[Audience]], None]] = []
        self._on_time: list[Callable[[float], None]] = []

    def tell_of_offers(self, listener: Callable[[Set[Audience]], None]) -> None:
        """Call `listener` after each commit of this process with which runs became available.

        It is called in the thread that has committed, and must not fail or wait.
        """
        self._on_offer.append(listener)

    def tell_of_time(self, listener: Callable[[float], None]) -> None:
        """Call `listener` with the time of each transaction, when that is first asked for.

        It is called in the transaction's thread, and must not fail or wait.
        """
        self._on_time.append(listener)

    def now(self, connection: Connection) -> float:
        """The time that a transaction goes by, in seconds since the epoch (UTC)."""
        now = self._clock.now(connection)
        for listener in self._on_time:
            listener(now)
        return now

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """A transaction that writes; commits at the end of the block, rolls back on an error.

        Raises:
            Unavailable: the database cannot be reached, is locked or is full.
        """
        with (
            self._writing(),
            translated(self.url),
            self._engine.connect() as connection,
            connection.begin(),
        ):
            tx = Transaction(connection, self)
            yield tx
            for study_id in tx.studies.write_back():
                self._project_or_mark(tx, study_id)
            for study_id in tx.studies.deleted:
                self._project(tx.connection, study_id)
        tx.note_commit()
        if offered_to := tx.offered_to:
            for listener in self._on_offer:
                listener(offered_to)

    @contextmanager
    def reading(self) -> Iterator[Transaction]:
        """One consistent view of the database, nothing of which can be changed.

        Raises:
            Unavailable: the database cannot be reached.
        """
        with translated(self.url), self._engine.connect() as connection:
            options = {READ_ONLY: True}
            if connection.dialect.name == "postgresql":
                connection = connection.execution_options(
                    isolation_level="REPEATABLE READ", postgresql_readonly=True, **options
                )
            else:
                connection = connection.execution_options(**options)
            with connection.begin() as began:
                yield Transaction(connection, self)
                began.rollback()  # SQLite refuses to commit where its file is damaged

    @contextmanager
    def turn(self, study: str) -> Iterator[None]:
        """The turn to add trials to the study of this name, for the block.

        Whoever has it finds the numbers free that it saw before its transaction: all who ask the
        sampler do so in their turns.  They wait in the order in which they asked, in this process
        and, on PostgreSQL, in the others.  Reports and ends wait for no turn.

        Raises:
            Unavailable: the turn did not come, or the database cannot be reached.
        """
        began = monotonic()
        with self._turns.take(("study", study)):
            if self._turn_engine is None:
                _waited("study", began)
                yield
                return
            with translated(self.url), self._turn_engine.begin() as connection:
                patience = func.set_config("lock_timeout", f"{BUSY_TIMEOUT_SECONDS}s", True)
                connection.execute(select(patience))
                lock = func.pg_advisory_xact_lock(_TURN_LOCKS, func.hashtext(study))
                connection.execute(select(lock))
                _waited("study", began)
                yield

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """The turn to write: SQLite has one writer at a time, and lets any of those that wait."""
        if self._turn_engine is not None:
            yield
            return
        began = monotonic()
        with self._turns.take("writer"):
            _waited("writer", began)
            yield

    def close(self) -> None:
        self._engine.dispose()
        if self._turn_engine is not None:
            self._turn_engine.dispose()

    def _project_or_mark(self, tx: Transaction, study_id: int) -> None:
        """Bring Optuna's tables up to date; where that fails, mark the study and go on.

        The copy follows from `projected_revision` alone, so the next change repairs it.
        """
        study = tx.studies.lock(study_id)
        try:
            with tx.connection.begin_nested():
                self._project(tx.connection, study_id)
            if study.projection_error is not None:
                tx.count(metrics.PROJECTION_REPAIRS)
        except Exception as exc:
            outage = outage_behind(exc)
            if outage is not None:
                raise outage from None
            with logs.about(study=study.name):
                log.exception("the copy in Optuna's tables is behind")
            tx.count(metrics.PROJECTION_FAILURES)
            tx.studies.mark_projection_failed(study_id, f"{type(exc).__name__}: {exc}"[:2_000])


def _waited(lock: str, began: float) -> None:
    metrics.LOCK_WAIT_SECONDS.labels(lock).observe(monotonic() - began)

"""The contract of the store, on every database it runs on."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import IntegrityError

from ridgeline.service import projection, studies, trials
from ridgeline.service.errors import RequestInFlight, StaleAttempt, Unavailable
from ridgeline.service.ledger import Ledger
from ridgeline.service.lifecycle import RunState
from ridgeline.service.outcomes import News, completed
from ridgeline.service.store import migrate
from ridgeline.service.store.idempotency import KEEP_SECONDS
from ridgeline.service.store.session import DatabaseClock, Store
from tests.conftest import ManualClock
from tests.parallel import in_parallel
from tests.service.factory import FakeWorker, post, spec, study_of


def test_an_error_leaves_nothing_behind(store: Store) -> None:
    def fail() -> None:
        with store.transaction() as tx:
            studies.create(tx, spec(), owner=None, local_datasets=(), max_open=9)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    with store.reading() as tx:
        assert tx.studies.find("s") is None


def test_a_reading_transaction_keeps_its_view(store: Store) -> None:
    post(store, spec("before"))
    with store.reading() as tx:
        assert tx.studies.find("before") is not None
        post(store, spec("after"))
        assert tx.studies.find("after") is None


def test_a_lock_serialises_the_writers_of_a_study(store: Store) -> None:
    """Thirty transactions on one study, in six threads: every revision is given out once."""
    post(store, spec(budget={"trials": 100}))

    def enqueue() -> None:
        for _ in range(5):
            with store.transaction() as tx:
                trials.enqueue(tx, "s", [{"learning_rate": 0.01}])

    in_parallel(6, enqueue)
    with store.reading() as tx:
        study = studies.find(tx, "s")
        numbers = [trial.number for trial in tx.trials.page(study.id)]
        revisions = [trial.created_revision for trial in tx.trials.page(study.id)]
    assert numbers == list(range(30))
    assert revisions == sorted(set(revisions))
    assert study.next_number == 30


def test_a_transition_has_one_winner(store: Store) -> None:
    post(store, spec())
    (order,) = FakeWorker(store).sync().start
    with store.reading() as tx:
        seen = tx.runs.get([order.run])[order.run]
    with store.transaction() as tx:
        Ledger(tx, seen.study_id).take([News(seen, outcome=completed(value=1.0, metrics={}))])
    with pytest.raises(StaleAttempt), store.transaction() as tx:
        Ledger(tx, seen.study_id).take([News(seen, outcome=completed(value=2.0, metrics={}))])
    with store.reading() as tx:
        run = tx.runs.get([order.run])[order.run]
    assert (run.state, run.value) == (RunState.COMPLETE, 1.0)


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO rl_trials (study_id, number, state, config, origin, revision, "
        "created_revision, created_at) "
        "SELECT study_id, number, 'WAITING', config, origin, 1, 1, 0 FROM rl_trials",
        "UPDATE rl_trials SET state = 'DONE'",
        "UPDATE rl_trials SET state = 'COMPLETE', finished_revision = 1",
        "UPDATE rl_trials SET state = 'FAIL', finished_revision = 1",
        "UPDATE rl_trials SET grid_cell = 0",
        "UPDATE rl_runs SET state = 'RUNNING'",
        "UPDATE rl_runs SET state = 'FAIL', reason = 'boredom'",
        "UPDATE rl_studies SET state = 'OPEN'",
        "UPDATE rl_studies SET num_open = -1",
        "DELETE FROM rl_trials",
        "UPDATE rl_runs SET worker_id = 'nobody'",
    ],
)
def test_invariants_stand_in_the_database(store: Store, statement: str) -> None:
    post(store, spec())
    with store.transaction() as tx:
        trials.enqueue(tx, "s", [{"learning_rate": 0.01}] * 2)
    with pytest.raises(IntegrityError), store.transaction() as tx:
        tx.connection.execute(text(statement))


def test_a_projection_that_fails_stops_nobody_and_is_repaired(
    migrated_url: str, clock: ManualClock
) -> None:
    broken = True

    def project(connection: Connection, study_id: int) -> None:
        projection.project(connection, study_id)
        if broken:
            raise RuntimeError("no projection today")

    store = Store(migrated_url, clock=clock, project=project)
    post(store, spec())
    worker = FakeWorker(store)
    worker.sync()
    assert "no projection today" in str(study_of(store).projection_error)
    with store.reading() as tx:
        assert tx.connection.execute(text("SELECT count(*) FROM studies")).scalar_one() == 0
    broken = False
    worker.end_all()
    assert study_of(store).projection_error is None
    with store.reading() as tx:
        query = "SELECT count(*) FROM trials WHERE state = 'COMPLETE'"
        assert tx.connection.execute(text(query)).scalar_one() == 1
    store.close()


def test_optunas_tables_may_even_be_missing(store: Store) -> None:
    """SQLite calls that an operational error, as it does a full disk; it is none."""
    with store.transaction() as tx:
        tx.connection.execute(text("ALTER TABLE study_directions RENAME TO elsewhere"))
    post(store, spec())
    assert study_of(store).projection_error is not None
    with store.transaction() as tx:
        tx.connection.execute(text("ALTER TABLE elsewhere RENAME TO study_directions"))
    FakeWorker(store).sync()
    assert study_of(store).projection_error is None


def test_idempotency_keys_are_kept_for_a_day(store: Store, clock: ManualClock) -> None:
    values = {"scope": "t POST /v1", "key": "k", "body_sha256": "0", "status": 201}
    with store.transaction() as tx:
        tx.idempotency.insert(**values, answer={"a": 1})  # type: ignore[arg-type]
    with pytest.raises(RequestInFlight), store.transaction() as tx:
        tx.idempotency.insert(**values, answer={"a": 2})  # type: ignore[arg-type]
    with store.reading() as tx:
        row = tx.idempotency.get("t POST /v1", "k")
    assert row is not None
    assert row["answer"] == {"a": 1}
    clock.advance(KEEP_SECONDS + 1)
    with store.transaction() as tx:
        assert tx.idempotency.get("t POST /v1", "k") is None
        tx.idempotency.insert(**values, answer={"a": 2})  # type: ignore[arg-type]


def test_the_database_tells_the_time(migrated_url: str) -> None:
    store = Store(migrated_url, clock=DatabaseClock(), project=projection.project)
    with store.reading() as tx:
        first = tx.now
    with store.reading() as tx:
        assert tx.now >= first > 1_700_000_000
    store.close()


def test_a_database_out_of_reach_is_unavailable(tmp_path: Path, clock: ManualClock) -> None:
    store = Store(f"sqlite:///{tmp_path}/no/such.db", clock=clock, project=projection.project)
    with pytest.raises(Unavailable, match="folder is not there"), store.reading():
        pass
    store.close()


def test_a_full_disk_is_unavailable_and_harms_nothing(tmp_path: Path, clock: ManualClock) -> None:
    url = f"sqlite:///{tmp_path}/small.db"
    migrate.upgrade(url, prepare=projection.prepare)
    store = Store(url, clock=clock, project=projection.project)
    post(store, spec(budget={"trials": 1_000}))
    before = study_of(store)

    def enqueue(pages: str) -> None:
        with store.transaction() as tx:
            tx.connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
            trials.enqueue(tx, "s", [{"learning_rate": 0.01}] * 500)

    with pytest.raises(Unavailable):
        enqueue("1")  # SQLite takes it as "what there is now"
    with store.reading() as tx:
        assert tx.connection.execute(text("PRAGMA integrity_check")).scalar_one() == "ok"
    assert study_of(store) == before
    enqueue("1073741823")
    assert study_of(store).trials.waiting == 500
    store.close()


def test_a_disk_that_is_full_at_any_page_loses_nothing(tmp_path: Path, clock: ManualClock) -> None:
    """SQLite then ends the whole transaction, also where it writes Optuna's tables."""
    url = f"sqlite:///{tmp_path}/small.db"
    migrate.upgrade(url, prepare=projection.prepare)
    store = Store(url, clock=clock, project=projection.project)
    post(store, spec(budget={"trials": 1_000}))

    def enqueue(num_more_pages: int) -> None:
        with store.transaction() as tx:
            num_pages = tx.connection.exec_driver_sql("PRAGMA page_count").scalar_one()
            tx.connection.exec_driver_sql(f"PRAGMA max_page_count = {num_pages + num_more_pages}")
            trials.enqueue(tx, "s", [{"learning_rate": 0.01}] * 100)

    for num_more_pages in range(1_000):
        try:
            enqueue(num_more_pages)
        except Unavailable:
            assert study_of(store).trials.waiting == 0
        else:
            break
    assert num_more_pages > 5
    assert study_of(store).trials.waiting == 100
    assert study_of(store).projection_error is None
    with store.reading() as tx:
        assert tx.connection.execute(text("SELECT count(*) FROM trials")).scalar_one() == 100
    store.close()


def test_another_version_of_the_schema_is_unavailable(
    database_url: str, clock: ManualClock
) -> None:
    """It was migrated while this process runs, to a version that does not know all columns."""
    migrate.upgrade(database_url, prepare=projection.prepare)
    store = Store(database_url, clock=clock, project=projection.project)
    post(store, spec())
    migrate.downgrade(database_url, "0006")
    for _ in range(2):
        with pytest.raises(Unavailable, match="ridgeline migrate"):
            FakeWorker(store).sync()
    migrate.upgrade(database_url, prepare=projection.prepare)
    assert len(FakeWorker(store).sync().start) == 1
    store.close()


def test_two_starters_migrate_once(database_url: str) -> None:
    in_parallel(3, lambda: migrate.upgrade(database_url, prepare=projection.prepare))
    assert migrate.is_current(database_url)


def test_more_ids_than_a_statement_takes(store: Store) -> None:
    """PostgreSQL's limit is 65,535; a long study has more trials than that."""
    many = range(1, 70_001)
    with store.reading() as tx:
        assert tx.runs.get(many) == {}
        assert set(map(len, tx.runs.of_trials(many).values())) == {0}

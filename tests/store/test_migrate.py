"""The migrations make exactly the tables the code uses, and leave Optuna's alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import optuna
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from optuna.storages import RDBStorage
from sqlalchemy import create_engine, inspect, text
from sqlalchemy.exc import IntegrityError

from ridgeline.service import projection
from ridgeline.service.store import migrate
from ridgeline.service.store.tables import metadata


@contextmanager
def optuna_storage(url: str) -> Iterator[RDBStorage]:
    storage = RDBStorage(url)
    yield storage
    storage.remove_session()
    storage.engine.dispose()


def upgraded(url: str) -> None:
    migrate.upgrade(url, prepare=projection.prepare)


def test_the_migrated_schema_is_that_of_the_tables(database_url: str) -> None:
    upgraded(database_url)
    engine = create_engine(database_url)
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection,
            opts={
                "include_name": migrate.is_ours,
                "version_table": migrate.VERSION_TABLE,
                "compare_type": True,
            },
        )
        assert compare_metadata(context, metadata) == []
        for table in metadata.tables.values():
            found = {
                check["name"] for check in inspect(connection).get_check_constraints(table.name)
            }
            wanted = {
                str(c.name) for c in table.constraints if c.__visit_name__ == "check_constraint"
            }
            assert {name for name in wanted if "ck_rl" in name} <= found
    engine.dispose()


def test_up_down_and_up_again_keeps_optunas_tables(database_url: str) -> None:
    upgraded(database_url)
    assert migrate.is_current(database_url)
    with optuna_storage(database_url) as storage:
        optuna.create_study(study_name="theirs", storage=storage)
    migrate.downgrade(database_url, "base")
    assert not migrate.is_current(database_url)
    engine = create_engine(database_url)
    assert [name for name in inspect(engine).get_table_names() if name.startswith("rl_")] == [
        migrate.VERSION_TABLE
    ]
    engine.dispose()
    upgraded(database_url)
    assert migrate.is_current(database_url)
    with optuna_storage(database_url) as storage:
        assert optuna.load_study(study_name="theirs", storage=storage).trials == []


def test_runs_pass_from_one_schema_to_the_next_and_back(database_url: str) -> None:
    migrate.upgrade(database_url, prepare=projection.prepare, revision="0001")
    engine = create_engine(database_url)
    study = {
        "id": 1,
        "name": "s",
        "spec": "{}",
        "state": "RUNNING",
        "stopping": False,
        **dict.fromkeys(("priority", "revision", "state_revision", "next_number"), 1),
        **dict.fromkeys(("num_enqueued", "num_open", "projected_revision"), 0),
        **dict.fromkeys(("device_seconds", "virtual_seconds", "created_at"), 0.0),
    }
    trial = {
        "id": 1,
        "study_id": 1,
        "number": 0,
        "state": "RUNNING",
        "config": "{}",
        "origin": "sampler",
        "revision": 1,
        "created_revision": 1,
        "created_at": 0.0,
    }
    run = {
        "id": 1,
        "study_id": 1,
        "trial_id": 1,
        "replicate": 0,
        "seed": 0,
        "state": "RUNNING",
        "attempt": 1,
        "charges": 0,
        "device_seconds": 0.0,
        "revision": 1,
        "created_at": 0.0,
    }
    with engine.begin() as connection:
        for table, row in (("rl_studies", study), ("rl_trials", trial), ("rl_runs", run)):
            names = ", ".join(row)
            values = ", ".join(f":{name}" for name in row)
            connection.execute(text(f"INSERT INTO {table} ({names}) VALUES ({values})"), row)
    upgraded(database_url)
    with engine.begin() as connection:
        found = connection.execute(text("SELECT state, pruned_by_version FROM rl_runs")).all()
        assert [tuple(row) for row in found] == [("RUNNING", None)]
    with engine.begin() as connection, pytest.raises(IntegrityError, match="pruned_by_rules"):
        connection.execute(text("UPDATE rl_runs SET pruned_by_version = 7"))
    with engine.begin() as connection:
        connection.execute(text("UPDATE rl_runs SET state = 'PRUNED', pruned_by_version = 7"))
    migrate.downgrade(database_url, "0001")
    with engine.connect() as connection:
        assert connection.execute(text("SELECT state FROM rl_runs")).scalars().all() == ["PRUNED"]
        assert "pruned_by_version" not in {
            column["name"] for column in inspect(connection).get_columns("rl_runs")
        }
    engine.dispose()
    upgraded(database_url)
    assert migrate.is_current(database_url)


def test_a_database_that_was_never_migrated_is_not_current(database_url: str) -> None:
    assert not migrate.is_current(database_url)


def test_optuna_accepts_the_database(database_url: str) -> None:
    """Its own version table is untouched by ours."""
    upgraded(database_url)
    upgraded(database_url)
    engine = create_engine(database_url)
    with engine.connect() as connection:
        version = connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one()
    engine.dispose()
    assert version.startswith("v3.")
    with optuna_storage(database_url) as storage:
        assert storage.get_all_studies() == []


@pytest.mark.parametrize("table", sorted(metadata.tables))
def test_our_tables_carry_our_prefix(table: str) -> None:
    assert table.startswith("rl_")


def test_the_migrations_are_found_in_any_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migrate, "__file__", "/opt/a%20b/migrate.py")
    engine = create_engine("sqlite://")
    with engine.connect() as connection:
        config = migrate._config(connection)
    engine.dispose()
    assert config.get_main_option("script_location") == "/opt/a%20b/migrations"

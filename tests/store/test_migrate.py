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

from service import projection
from service.store import migrate
from service.store.tables import metadata


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

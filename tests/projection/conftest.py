"""Databases with our tables and Optuna's, and Optuna's own readers on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import optuna
import pytest
from sqlalchemy import Engine

from ridgeline.service import projection
from ridgeline.service.store.tables import metadata
from tests.projection.book import Book, open_engine, spec

OpenReader = Callable[..., optuna.Study]


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    projection.prepare(database_url)
    engine = open_engine(database_url)
    metadata.create_all(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def book(engine: Engine) -> Book:
    return Book(engine, spec())


@pytest.fixture
def storage(database_url: str, engine: Engine) -> Iterator[optuna.storages.RDBStorage]:
    storage = optuna.storages.RDBStorage(database_url)
    yield storage
    storage.remove_session()
    storage.engine.dispose()


@pytest.fixture
def open_reader(storage: optuna.storages.RDBStorage) -> OpenReader:
    """Opens a study as a notebook does; each reader keeps a cache of its own."""

    def open_one(
        name: str = "digits", sampler: optuna.samplers.BaseSampler | None = None
    ) -> optuna.Study:
        return optuna.load_study(study_name=name, storage=storage, sampler=sampler)

    return open_one

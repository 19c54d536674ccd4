"""What /readyz says of each check, and that /healthz asks nobody."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import create_engine, event, text

from ridgeline.service import projection
from ridgeline.service.api.app import create_app
from ridgeline.service.settings import Settings
from ridgeline.service.store import migrate
from ridgeline.service.store.session import Store
from tests.api.calling import ok, problem, sqlite_only
from tests.api.conftest import ClientOf
from tests.api.upstream import hung_at, upstream_at
from tests.conftest import ManualClock
from tests.service.factory import external, post


def checks(client: httpx.Client) -> dict[str, str]:
    """What is not ok, and why, of a service that works."""
    body = ok(client.get("/readyz"))
    names = {check["name"] for check in body["checks"]}
    assert names == {"database", "storage", "schema", "projection", "dashboard"}
    wrong = {one["name"]: one["detail"] for one in body["checks"] if one["status"] != "ok"}
    assert body["status"] == ("degraded" if wrong else "ok")
    return wrong


def failed(client: httpx.Client) -> dict[str, str]:
    """The checks that have failed, and why."""
    answer = client.get("/readyz")
    body = problem(answer, 503)
    assert body["type"] == "urn:ridgeline:unavailable"
    assert answer.headers["retry-after"] == "1"
    found = {error["field"]: error["message"] for error in body["errors"]}
    assert body["detail"] == "; ".join(found.values())
    return found


def test_a_service_that_works(client: httpx.Client) -> None:
    assert checks(client) == {}


def test_copies_that_are_behind_degrade_it(client: httpx.Client, store: Store) -> None:
    def fail(*_: object) -> None:
        raise ValueError("a wrong row, say")

    store._project = fail
    post(store, external())
    assert "1 studies" in checks(client)["projection"]


@sqlite_only
def test_a_dashboard_that_does_not_answer_degrades_it(
    settings: Settings, store: Store, socket_path: Path, client_of: ClientOf
) -> None:
    app = create_app(settings.model_copy(update={"dashboard_socket": socket_path}), store)
    client = client_of(app)
    assert "does not answer" in checks(client)["dashboard"]
    with upstream_at(socket_path):
        assert checks(client) == {}


@sqlite_only
def test_a_dashboard_that_hangs_degrades_it(
    settings: Settings,
    store: Store,
    socket_path: Path,
    client_of: ClientOf,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ridgeline.service.api.dashboard_alive.ALIVE_SECONDS", 0.01)
    app = create_app(settings.model_copy(update={"dashboard_socket": socket_path}), store)
    with hung_at(socket_path):
        assert "does not answer" in checks(client_of(app))["dashboard"]


def test_a_database_without_tables(
    database_url: str, settings: Settings, clock: ManualClock, client_of: ClientOf
) -> None:
    store = Store(database_url, clock=clock, project=projection.project)
    client = client_of(create_app(settings, store))
    with store.reading():
        pass  # which makes the file
    assert "ridgeline migrate" in failed(client)["schema"]
    migrate.upgrade(database_url, prepare=projection.prepare)
    assert checks(client) == {}
    store.close()


@sqlite_only
def test_a_disk_that_is_nearly_full(client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ridgeline.service.store.room.MIN_FREE_BYTES", 2**60)
    assert "MiB left" in failed(client)["storage"]


@pytest.mark.parametrize("migrated_url", ["postgresql"], indirect=True)
def test_a_server_that_takes_no_writes(client: httpx.Client, store: Store) -> None:
    admin = create_engine(store.url, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        name = store.url.database
        connection.execute(text(f"ALTER DATABASE {name} SET default_transaction_read_only = on"))
    admin.dispose()
    store._engine.dispose()
    assert "read-only" in failed(client)["storage"]


def test_a_database_that_is_away(
    settings: Settings, clock: ManualClock, client_of: ClientOf, tmp_path: Path
) -> None:
    store = Store(
        f"sqlite:///{tmp_path / 'nowhere' / 'x.db'}", clock=clock, project=projection.project
    )
    client = client_of(create_app(settings, store))
    assert failed(client).keys() == {"database"}
    assert ok(client.get("/healthz")) == {"status": "ok"}


def test_whether_the_process_is_up_is_not_asked_of_the_database(
    app: FastAPI, client: httpx.Client, store: Store
) -> None:
    asked: list[Any] = []
    event.listen(store._engine, "checkout", lambda *args: asked.append(args))
    ok(client.get("/healthz"))
    assert asked == []
    ok(client.get("/readyz"))
    assert asked


def test_a_database_of_a_newer_version(client: httpx.Client, store: Store) -> None:
    with store.transaction() as tx:
        tx.connection.execute(text(f"UPDATE {migrate.VERSION_TABLE} SET version_num = '9999'"))
    assert list(failed(client)) == ["schema"]
    assert "newer than this program" in failed(client)["schema"]


@pytest.mark.parametrize(
    ("statement", "wrong"),
    [
        ("DELETE FROM {}", "does not say which schema it has"),
        ("INSERT INTO {} (version_num) VALUES ('0001')", "names several schemas"),
    ],
)
def test_a_database_of_an_unknown_version(
    client: httpx.Client, store: Store, statement: str, wrong: str
) -> None:
    with store.transaction() as tx:
        tx.connection.execute(text(statement.format(migrate.VERSION_TABLE)))
    assert wrong in failed(client)["schema"]


def test_a_database_whose_folder_is_gone(
    migrated_sqlite: Path,
    settings: Settings,
    clock: ManualClock,
    client_of: ClientOf,
    tmp_path: Path,
) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    shutil.copy(migrated_sqlite, folder / "test.db")
    store = Store(f"sqlite:///{folder}/test.db", clock=clock, project=projection.project)
    client = client_of(create_app(settings, store))
    assert checks(client) == {}
    shutil.rmtree(folder)
    assert "no longer in its place" in failed(client)["database"]
    assert "no longer in its place" in problem(client.get("/v1/studies"), 503)["detail"]
    store.close()

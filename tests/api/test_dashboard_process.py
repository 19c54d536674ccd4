"""The dashboard's own process: waits for the tables, reads, and cannot write."""

from __future__ import annotations

import shutil
import socket
import sqlite3
from pathlib import Path

import httpx
import pytest
from optuna.exceptions import StorageInternalError
from optuna.study import StudyDirection
from sqlalchemy.engine import URL, make_url

from service import dashboard, projection
from service.store import migrate
from tests.api.calling import EXTERNAL, ok
from tests.api.serving import dashboard_process, wait_for_url


@pytest.mark.slow
def test_it_reads_and_cannot_write(client: httpx.Client, migrated_url: str) -> None:
    ok(client.post("/v1/studies", json=EXTERNAL), 201)
    ok(client.post("/v1/studies/x/trials:suggest"))
    with dashboard_process(migrated_url) as process, httpx.Client(trust_env=False) as http:
        url = wait_for_url(process)

        def studies() -> list[tuple[int, str]]:
            found = ok(http.get(f"{url}/api/studies"))["study_summaries"]
            return [(study["study_id"], study["study_name"]) for study in found]

        before = studies()
        assert [name for _, name in before] == ["x"]
        study_id = before[0][0]
        for method, path, body in (
            ("DELETE", f"/api/studies/{study_id}", {}),
            ("POST", "/api/studies", {"study_name": "mine", "directions": ["minimize"]}),
            ("POST", f"/api/studies/{study_id}/rename", {"study_name": "mine"}),
            ("PUT", f"/api/studies/{study_id}/note", {"body": "mine", "version": 1}),
        ):
            answer = http.request(method, f"{url}{path}", json=body)
            assert answer.status_code >= 400, (method, path)
        assert studies() == before
    assert process.returncode != 0


@pytest.mark.slow
def test_it_waits_for_the_tables(database_url: str) -> None:
    with dashboard_process(database_url) as process, httpx.Client(trust_env=False) as http:
        migrate.upgrade(database_url, prepare=projection.prepare)
        assert ok(http.get(f"{wait_for_url(process)}/api/studies")) == {"study_summaries": []}


@pytest.mark.parametrize("migrated", [False, True])
def test_it_gives_up_with_a_message(tmp_path: Path, migrated: bool) -> None:
    path = tmp_path / "x.db"
    if migrated:
        sqlite3.connect(path).close()
    with pytest.raises(dashboard.NoTables, match="ridgeline migrate"):
        dashboard.wait_for_tables(dashboard.read_only(f"sqlite:///{path}"), seconds=0)
    assert path.exists() == migrated


def test_paths_with_odd_characters(tmp_path: Path, migrated_sqlite: Path) -> None:
    path = tmp_path / "odd ?#%41{x}&mode=rw" / "x.db"
    path.parent.mkdir()
    shutil.copy(migrated_sqlite, path)
    url = URL.create("sqlite", database=str(path)).render_as_string()
    read_only = dashboard.read_only(url)
    dashboard.wait_for_tables(read_only, seconds=0)
    storage = dashboard.open_storage(read_only)
    assert storage.get_all_studies() == []
    with pytest.raises(StorageInternalError):
        storage.create_new_study([StudyDirection.MINIMIZE], "x")
    storage.remove_session()
    storage.engine.dispose()


def test_connections_send_without_delay(migrated_sqlite: Path) -> None:
    url = dashboard.read_only(f"sqlite:///{migrated_sqlite}")
    with (
        dashboard.open_server(url, "127.0.0.1", 0) as server,
        socket.create_connection(("127.0.0.1", server.server_port)),
    ):
        connection, _ = server.get_request()
        with connection:
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_sessions_of_postgresql_are_read_only() -> None:
    url = dashboard.read_only("postgresql+psycopg://u:p@h/d?options=-csearch_path%3Dx")
    assert url.query["options"] == "-csearch_path=x -c default_transaction_read_only=on"
    assert make_url(url.render_as_string(hide_password=False)) == url

"""The dashboard's own process: waits for the tables, reads, and cannot write."""

from __future__ import annotations

import shutil
import sqlite3
import stat
from pathlib import Path

import httpx
import pytest
from optuna.exceptions import StorageInternalError
from optuna.study import StudyDirection
from sqlalchemy.engine import URL, make_url

from ridgeline.service import projection
from ridgeline.service.dashboard import server as dashboard
from ridgeline.service.store import migrate
from ridgeline.service.store.engine import read_only
from tests.api.calling import EXTERNAL, ok
from tests.api.serving import dashboard_process, through, wait_until_listening
from tests.listening import doors


@pytest.mark.slow
def test_it_reads_and_cannot_write(
    client: httpx.Client, migrated_url: str, socket_path: Path
) -> None:
    ok(client.post("/v1/studies", json=EXTERNAL), 201)
    ok(client.post("/v1/studies/x/trials:suggest"))
    with dashboard_process(migrated_url, socket_path) as process, through(socket_path) as http:
        wait_until_listening(process)

        def studies() -> list[tuple[int, str]]:
            found = ok(http.get("/api/studies"))["study_summaries"]
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
            answer = http.request(method, path, json=body)
            assert answer.status_code >= 400, (method, path)
        assert studies() == before
    assert process.returncode != 0


@pytest.mark.slow
def test_it_waits_for_the_tables(database_url: str, socket_path: Path) -> None:
    with dashboard_process(database_url, socket_path) as process, through(socket_path) as http:
        migrate.upgrade(database_url, prepare=projection.prepare)
        wait_until_listening(process)
        assert ok(http.get("/api/studies")) == {"study_summaries": []}


@pytest.mark.slow
def test_it_listens_for_its_own_user_and_on_no_port(
    migrated_sqlite: Path, socket_path: Path
) -> None:
    url = URL.create("sqlite", database=str(migrated_sqlite)).render_as_string()
    for _ in range(2):  # the second one finds the socket of the first
        with dashboard_process(url, socket_path) as process, through(socket_path) as http:
            wait_until_listening(process)
            assert http.get("/api/studies").status_code == 200
            assert stat.S_IMODE(socket_path.stat().st_mode) == 0o600
            assert doors([process.pid]) == {f"unix {socket_path}"}
        assert socket_path.is_socket()


@pytest.mark.parametrize("shared", [True, False])
def test_a_socket_that_cannot_be_made_is_told(
    migrated_sqlite: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, shared: bool
) -> None:
    url = URL.create("sqlite", database=str(migrated_sqlite)).render_as_string()
    folder = tmp_path / ("shared" if shared else "x" * 120)
    folder.mkdir()
    folder.chmod(0o777 if shared else 0o700)
    args = ["--database-url", url, "--socket", str(folder / "dashboard")]
    assert dashboard.main(args) == 1
    reason = f"others may write to {folder}" if shared else "AF_UNIX path too long"
    assert caplog.messages[-1] == reason
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("args", "variables", "line"),
    [
        ([], {}, "--socket or RIDGELINE_DASHBOARD_SOCKET must say where to listen"),
        ([], {"PORT": "many"}, "RIDGELINE_PORT: must be a valid integer"),
        (["--database-url", "nonsense"], {}, "--database-url: must be like sqlite:///file"),
        ([], {"DATABASE_URL": "mysql://a/b"}, "RIDGELINE_DATABASE_URL: must be like sqlite"),
        (
            [],
            {"DASHBOARD_DATABASE_URL": "postgresql+psycopg://a:b@c:d/e"},
            "RIDGELINE_DASHBOARD_DATABASE_URL: must be like sqlite",
        ),
    ],
)
def test_what_is_wrong_is_told_on_one_line(
    args: list[str],
    variables: dict[str, str],
    line: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, text in variables.items():
        monkeypatch.setenv(f"RIDGELINE_{name}", text)
    with pytest.raises(SystemExit) as ended:
        dashboard.main(args)
    assert ended.value.code == 2
    assert f"ridgeline.service.dashboard: error: {line}" in capsys.readouterr().err


@pytest.mark.parametrize("migrated", [False, True])
def test_it_gives_up_with_a_message(tmp_path: Path, migrated: bool) -> None:
    path = tmp_path / "x.db"
    if migrated:
        sqlite3.connect(path).close()
    with pytest.raises(dashboard.NoTables, match="ridgeline migrate"):
        dashboard.wait_for_tables(read_only(make_url(f"sqlite:///{path}")), seconds=0)
    assert path.exists() == migrated


def test_paths_with_odd_characters(tmp_path: Path, migrated_sqlite: Path) -> None:
    path = tmp_path / "odd ?#%41{x}&mode=rw" / "x.db"
    path.parent.mkdir()
    shutil.copy(migrated_sqlite, path)
    url = read_only(URL.create("sqlite", database=str(path)))
    dashboard.wait_for_tables(url, seconds=0)
    storage = dashboard.open_storage(url)
    assert storage.get_all_studies() == []
    with pytest.raises(StorageInternalError):
        storage.create_new_study([StudyDirection.MINIMIZE], "x")
    storage.remove_session()
    storage.engine.dispose()


def test_sessions_of_postgresql_are_read_only() -> None:
    given = make_url("postgresql+psycopg://u:p@h/d?options=-csearch_path%3Dx")
    url = read_only(given)
    assert url.query["options"] == "-csearch_path=x -c default_transaction_read_only=on"
    assert make_url(url.render_as_string(hide_password=False)) == url

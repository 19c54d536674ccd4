"""Tokens and roles, made on the database itself."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DBAPIError

from ridgeline.service import tokens, wiring
from ridgeline.service.errors import InvalidInput
from ridgeline.service.settings import Settings
from ridgeline.service.store.roles import grant_reading
from tests.cli.conftest import Ridgeline


@pytest.mark.parametrize("command", [("list",), ("revoke", "an-id")], ids=" ".join)
def test_looking_for_tokens_makes_no_database(
    command: tuple[str, ...], ridgeline: Ridgeline, tmp_path: Path
) -> None:
    result = ridgeline("token", *command)
    assert result.exit_code == 1
    assert result.stderr.startswith("ridgeline: there is no database ")
    assert not (tmp_path / "ridgeline-data").exists()


def test_a_token_is_shown_once_and_can_be_revoked(ridgeline: Ridgeline, tmp_path: Path) -> None:
    scopes = ("--scope", "read", "--scope", "write")
    made = ridgeline("token", "create", "Ada", *scopes, "--note", "for the notebooks")
    assert made.exit_code == 0
    secret = made.stdout.strip()
    assert made.stdout == f"{secret}\n"
    token_id = secret.split("_")[1]
    listed = ridgeline("token", "list").stdout
    head, line = listed.splitlines()
    assert head.split() == ["id", "name", "scopes", "created", "state", "note"]
    time = r"\d{4}-\d\d-\d\d \d\d:\d\d"
    pattern = rf"{token_id}  Ada   read write  {time}  valid  for the notebooks"
    assert re.fullmatch(pattern, line.rstrip())
    assert secret.split("_")[2] not in listed
    assert ridgeline("token", "revoke", token_id).stdout == f"{token_id} is revoked.\n"
    assert re.search(f"{time}  revoked {time}  for", ridgeline("token", "list").stdout)
    unknown = ridgeline("token", "revoke", "nobody")
    assert (unknown.exit_code, unknown.stderr) == (1, "ridgeline: there is no token nobody\n")


def test_migrate_leaves_tokens_once(ridgeline: Ridgeline, tmp_path: Path) -> None:
    folder = tmp_path / "tokens"
    folder.mkdir()
    paths = {scope: folder / f"{scope}.token" for scope in ("admin", "worker")}
    texts = []
    for _ in range(2):
        assert ridgeline("migrate", token_dir=str(folder)).exit_code == 0
        texts.append({scope: path.read_text() for scope, path in paths.items()})
    assert texts[0] == texts[1]
    assert sorted(path.name for path in folder.iterdir()) == ["admin.token", "worker.token"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in paths.values()} == {0o640}
    store = wiring.open_store(Settings(_env_file=None))
    with store.reading() as tx:
        notes = [token.note for token in tokens.list_all(tx)]
        assert notes == [f"in the file {path}" for path in paths.values()]
        for scope, token in texts[0].items():
            assert tokens.authenticate(tx, token.strip()).scopes == (scope,)
    store.close()


def test_migrate_replaces_a_token_that_the_database_does_not_know(
    ridgeline: Ridgeline, tmp_path: Path
) -> None:
    (tmp_path / "worker.token").write_text("rl_of_another_database\n")
    assert ridgeline("migrate", token_dir=str(tmp_path)).exit_code == 0
    assert (tmp_path / "worker.token").read_text() != "rl_of_another_database\n"


def test_a_token_is_not_written_through_a_link(ridgeline: Ridgeline, tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("kept")
    (tmp_path / f".worker.token.{os.getpid()}").symlink_to("precious")
    assert ridgeline("migrate", token_dir=str(tmp_path)).exit_code == 0
    assert (tmp_path / "precious").read_text() == "kept"
    assert not (tmp_path / "worker.token").is_symlink()


def test_migrate_without_a_token_folder_leaves_none(ridgeline: Ridgeline) -> None:
    assert ridgeline("migrate").stdout == "The database is ready.\n"
    assert len(ridgeline("token", "list").stdout.splitlines()) == 1
    missing = ridgeline("migrate", token_dir="absent")
    assert missing.stderr == (
        "ridgeline: cannot write absent/admin.token: No such file or directory\n"
    )


READER = 'reader of "it\'s" 100%'
PASSWORD = 'it\'s a {secret} "100%" \\'


def test_the_dashboards_role_reads_and_writes_nothing(
    ridgeline: Ridgeline, postgres_url: str
) -> None:
    reader = make_url(postgres_url).set(username=READER, password=PASSWORD)
    reader_url = reader.render_as_string(hide_password=False)
    for _ in range(2):
        result = ridgeline("migrate", database_url=postgres_url, dashboard_database_url=reader_url)
        assert (result.exit_code, result.stderr) == (0, "")
    engine = create_engine(reader)
    with engine.connect() as connection:
        for table in ("studies", "trials", "rl_studies"):
            assert connection.execute(text(f"SELECT count(*) FROM {table}")).scalar_one() == 0
    for statement in (
        "SELECT * FROM rl_tokens",
        "SELECT * FROM rl_idempotency_keys",
        "SET TRANSACTION READ WRITE; DELETE FROM studies",
        "SET TRANSACTION READ WRITE; CREATE ROLE another",
    ):
        with engine.connect() as connection, pytest.raises(DBAPIError, match="denied"):
            connection.execute(text(statement))
    with (
        engine.connect() as connection,
        pytest.raises(DBAPIError, match="read-only transaction"),
    ):
        connection.execute(text("CREATE TEMPORARY TABLE mine (id int)"))
    engine.dispose()


def test_a_table_made_later_can_be_read_too(postgres_url: str) -> None:
    reader = make_url(postgres_url).set(username="later_reader", password="x")
    owner = create_engine(postgres_url)
    with owner.begin() as connection:
        connection.execute(text("CREATE TABLE rl_tokens (id int)"))
        connection.execute(text("CREATE TABLE rl_idempotency_keys (id int)"))
    grant_reading(make_url(postgres_url), reader.render_as_string(hide_password=False))
    with owner.begin() as connection:
        connection.execute(text("CREATE TABLE later (id int)"))
    owner.dispose()
    engine = create_engine(reader)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM later")).scalar_one() == 0
    engine.dispose()


@pytest.mark.parametrize(
    ("user", "password", "reason"),
    [
        (None, None, "needs a user and a password"),
        ("reader", None, "needs a user and a password"),
        ("postgres", "x", "must name another user than the service's"),
    ],
)
def test_readers_that_cannot_be(
    user: str | None, password: str | None, reason: str, postgres_url: str
) -> None:
    database = make_url(postgres_url)
    reader = URL.create("postgresql", user, password, database=database.database)
    with pytest.raises(InvalidInput, match=reason):
        grant_reading(database, reader.render_as_string(hide_password=False))


def test_a_user_who_may_not_make_roles(postgres_url: str) -> None:
    database = make_url(postgres_url)
    owner = create_engine(database)
    with owner.begin() as connection:
        connection.execute(text("CREATE ROLE modest LOGIN PASSWORD 'x'"))
    owner.dispose()
    modest = database.set(username="modest", password="x")
    reader = database.set(username="another", password="x")
    with pytest.raises(InvalidInput, match="cannot set up another: permission denied"):
        grant_reading(modest, reader.render_as_string(hide_password=False))


def test_a_user_who_may_make_roles_need_be_no_superuser(postgres_url: str) -> None:
    database = make_url(postgres_url)
    owner = create_engine(database)
    with owner.begin() as connection:
        connection.execute(text("CREATE ROLE maker LOGIN CREATEROLE PASSWORD 'x'"))
        connection.execute(text(f'ALTER DATABASE "{database.database}" OWNER TO maker'))
        connection.execute(text("GRANT CREATE ON SCHEMA public TO maker"))
    owner.dispose()
    maker = database.set(username="maker", password="x")
    reader = database.set(username="made_reader", password="x")
    engine = create_engine(maker)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE rl_tokens (id int)"))
        connection.execute(text("CREATE TABLE rl_idempotency_keys (id int)"))
        connection.execute(text("CREATE TABLE read_me (id int)"))
    engine.dispose()
    grant_reading(maker, reader.render_as_string(hide_password=False))
    engine = create_engine(reader)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM read_me")).scalar_one() == 0
    engine.dispose()


def test_a_reader_that_is_no_url() -> None:
    database = make_url("postgresql+psycopg://a:b@127.0.0.1:1/none")
    with pytest.raises(InvalidInput, match="RIDGELINE_DASHBOARD_DATABASE_URL: must be like"):
        grant_reading(database, "nonsense")


def test_sqlite_needs_no_role() -> None:
    grant_reading(make_url("sqlite:////nowhere/x.db"), "sqlite:////nowhere/x.db")


def test_a_note_that_no_line_can_hold(ridgeline: Ridgeline) -> None:
    result = ridgeline("token", "create", "Ada", "--scope", "read", "--note", "a\nb")
    assert result.exit_code == 2
    assert result.stderr.startswith("ridgeline: --note: ")

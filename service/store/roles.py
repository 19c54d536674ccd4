"""The PostgreSQL role that the dashboard reads with: it sees the studies and writes nothing."""

from __future__ import annotations

import psycopg
from psycopg import sql
from sqlalchemy import text
from sqlalchemy.engine import URL

from ridgeline.service.errors import InvalidInput
from ridgeline.service.store.engine import open_engine, parse_url

_SETTING = "RIDGELINE_DASHBOARD_DATABASE_URL"
_ADVISORY_LOCK = 0x5269_6467_526F_6C65  # "RidgRole": any number that nobody else uses

_STATEMENTS = (
    "ALTER ROLE {role} WITH LOGIN PASSWORD {password}",
    "ALTER ROLE {role} SET default_transaction_read_only = on",
    "GRANT CONNECT ON DATABASE {database} TO {role}",
    "GRANT USAGE ON SCHEMA {schema} TO {role}",
    "GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO {role}",
    "ALTER DEFAULT PRIVILEGES IN SCHEMA {schema} GRANT SELECT ON TABLES TO {role}",
    # Digests of secrets, and answers that were meant for one caller alone.
    "REVOKE ALL ON rl_tokens, rl_idempotency_keys FROM {role}",
)


def grant_reading(database: URL, reader_url: str) -> None:
    """Create the role that `reader_url` names, with its password, and let it read the tables.

    May be repeated, by several processes at once; it then sets the password and the rights anew.
    Nothing happens where the database is not PostgreSQL: SQLite files are opened read-only.

    Args:
        database: the database, with a user who may create roles.
        reader_url: the same database as the dashboard opens it.

    Raises:
        InvalidInput: `reader_url` is no URL of a database, names no user and password, or the user
            of `database` itself, or that user may not create roles.
    """
    if database.get_backend_name() != "postgresql":
        return
    reader = parse_url(reader_url, _SETTING)
    if not reader.username or not reader.password:
        raise InvalidInput([(_SETTING, "needs a user and a password")])
    if reader.username == database.username:
        raise InvalidInput([(_SETTING, "must name another user than the service's own")])
    engine = open_engine(database)
    try:
        with engine.begin() as connection:
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ADVISORY_LOCK})
            postgres = connection.connection.driver_connection
            assert isinstance(postgres, psycopg.Connection)
            _grant(postgres, reader.username, str(reader.password))
    except psycopg.Error as exc:
        raise InvalidInput([(_SETTING, f"cannot set up {reader.username}: {exc}")]) from exc
    finally:
        engine.dispose()


def _grant(postgres: psycopg.Connection, role: str, password: str) -> None:
    # libpq makes the digest here, so that the password itself stands in no log of the server.
    digest = postgres.pgconn.encrypt_password(password.encode(), role.encode())
    found = postgres.execute(
        "SELECT current_database(), current_schema(), "
        "EXISTS (SELECT FROM pg_roles WHERE rolname = %s)",
        [role],
    ).fetchone()
    assert found is not None
    database, schema, exists = found
    names = {
        "role": sql.Identifier(role),
        "password": sql.Literal(digest.decode()),
        "database": sql.Identifier(database),
        "schema": sql.Identifier(schema),
    }
    statements = _STATEMENTS if exists else ("CREATE ROLE {role}", *_STATEMENTS)
    for statement in statements:
        postgres.execute(sql.SQL(statement).format(**names))

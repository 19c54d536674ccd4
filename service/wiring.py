"""The composition root: settings in, objects out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError

from ridgeline.service import projection
from ridgeline.service.artifacts.base import ArtifactStore
from ridgeline.service.artifacts.folder import FolderArtifacts
from ridgeline.service.errors import Conflict, InvalidInput, Unavailable
from ridgeline.service.settings import Settings
from ridgeline.service.store import migrate
from ridgeline.service.store.engine import parse_url, sqlite_file
from ridgeline.service.store.failures import how_to_restore, is_damage
from ridgeline.service.store.session import DatabaseClock, Store


def open_store(settings: Settings) -> Store:
    """The store of a database that has been migrated."""
    return Store(settings.resolved_database_url, clock=DatabaseClock(), project=projection.project)


def open_artifacts(settings: Settings) -> ArtifactStore:
    """Where files that runs leave are kept; a folder is made when the first of them comes.

    Raises:
        InvalidInput: it is a URL that cannot be used here.
    """
    folder = settings.artifact_folder
    if folder is not None:
        return FolderArtifacts(folder)
    assert settings.artifacts is not None
    try:
        from ridgeline.service.artifacts.url import UrlArtifacts  # fsspec need not be installed

        return UrlArtifacts(settings.artifacts)
    except ImportError as exc:
        reason = f"{exc}; pip install 'ridgeline[artifacts]' and what the protocol needs"
        raise InvalidInput([("RIDGELINE_ARTIFACTS", reason)]) from exc
    except ValueError as exc:
        raise InvalidInput([("RIDGELINE_ARTIFACTS", str(exc))]) from exc


def check_file(settings: Settings) -> URL:
    """The database's URL; an embedded one has to be there.

    Raises:
        InvalidInput: the URL is none that this service can use.
        Unavailable: there is no database.
    """
    url = parse_url(settings.resolved_database_url, "RIDGELINE_DATABASE_URL")
    if (path := sqlite_file(url)) is not None and not path.exists():
        raise Unavailable(f"there is no database {path}")
    return url


def check_database(settings: Settings) -> None:
    """See whether there is a database of this version, and change nothing.

    Raises:
        InvalidInput: the URL is none that this service can use.
        Unavailable: the database cannot be reached, or there is none.
        Conflict: it is of another version.
    """
    text = settings.resolved_database_url
    url = check_file(settings)
    with _reached(url):
        if not migrate.is_current(text):
            raise Conflict("the database is not of this version: run `ridgeline migrate` first")


@contextmanager
def _reached(url: URL) -> Iterator[None]:
    try:
        yield
    except DBAPIError as exc:
        file = sqlite_file(url)
        if file is not None and is_damage(exc):
            raise Unavailable(
                f"the database {file} is damaged ({exc.orig}). {how_to_restore(file)}"
            ) from exc
        raise Unavailable(f"the database cannot be used: {exc.orig}") from exc


def migrate_database(settings: Settings) -> None:
    """Create or upgrade the schema, ours and Optuna's; safe to call from several processes.

    Raises:
        InvalidInput: the URL is none that this service can use.
        Unavailable: the database cannot be reached.
        Conflict: it holds the tables of another version of Optuna, or is newer than this program.
    """
    text = settings.resolved_database_url
    url = parse_url(text, "RIDGELINE_DATABASE_URL")
    try:
        with _reached(url):
            migrate.upgrade(text, prepare=projection.prepare)
    except RuntimeError as exc:
        raise Conflict(str(exc)) from exc

"""Whether the service can do its work, check by check."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from ridgeline.service.api.dashboard_alive import DOES_NOT_ANSWER, is_alive
from ridgeline.service.errors import Unavailable
from ridgeline.service.settings import Settings
from ridgeline.service.store import migrate
from ridgeline.service.store.failures import LACKS_SCHEMA
from ridgeline.service.store.room import why_not_writable
from ridgeline.service.store.session import Store

Name = Literal["database", "schema", "storage", "projection", "dashboard"]


class Check(BaseModel):
    model_config = ConfigDict(frozen=True)

    name: Name
    status: Literal["ok", "degraded", "failed"]
    detail: str = Field(description="why it is not ok, and what to do")


class Readiness:
    """Looks at what the service needs; a schema that was found current is not looked at again.

    Anybody may ask, so nothing is told but what a probe needs.
    """

    def __init__(self, settings: Settings, store: Store) -> None:
        self._dashboard = settings.dashboard_socket
        self._store = store
        self._schema_is_current = False

    def checks(self) -> list[Check]:
        """Every check, those left out that another one that failed is needed for.

        A service without its dashboard, or with a copy in Optuna's tables that is behind, is
        degraded; it does its work.
        """
        return [*self._of_database(), self._of_dashboard()]

    def _of_database(self) -> Iterator[Check]:
        try:
            with self._store.reading() as tx:
                _ = tx.now  # asks the database
                obstacle = why_not_writable(tx.connection, self._store.url)
        except Unavailable as exc:
            yield Check(name="database", status="failed", detail=exc.detail)
            return
        yield Check(name="database", status="ok", detail="")
        yield _check("storage", "failed", obstacle)
        if not self._schema_is_current:
            url = self._store.url.render_as_string(hide_password=False)
            try:
                self._schema_is_current = migrate.is_current(url)
            except migrate.UnknownSchema as exc:  # its text names files, and anybody reads this
                yield Check(name="schema", status="failed", detail=exc.brief)
                return
        if not self._schema_is_current:
            yield Check(name="schema", status="failed", detail=LACKS_SCHEMA)
            return
        yield Check(name="schema", status="ok", detail="")
        with self._store.reading() as tx:
            num_stale = sum(one.num_stale for one in tx.census.studies())
        behind = f"{num_stale} studies have copies in Optuna's tables that are behind"
        yield _check("projection", "degraded", behind if num_stale else None)

    def _of_dashboard(self) -> Check:
        obstacle = None
        if self._dashboard is not None and not is_alive(self._dashboard):
            obstacle = DOES_NOT_ANSWER
        return _check("dashboard", "degraded", obstacle)


def _check(name: Name, otherwise: Literal["degraded", "failed"], obstacle: str | None) -> Check:
    if obstacle is None:
        return Check(name=name, status="ok", detail="")
    return Check(name=name, status=otherwise, detail=obstacle)

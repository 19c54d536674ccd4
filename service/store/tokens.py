"""Tokens in the database; only the digest of a secret is ever stored."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sqlalchemy import Connection, RowMapping, func, insert, select, update

from ridgeline.service.store.tables import tokens


class Tokens:
    def __init__(self, connection: Connection, now: Callable[[], float]) -> None:
        self._connection = connection
        self._now = now

    def insert(
        self,
        *,
        id: str,
        name: str,
        secret_sha256: str,
        scopes: Sequence[str],
        note: str | None = None,
    ) -> None:
        self._connection.execute(
            insert(tokens).values(
                id=id,
                name=name,
                secret_sha256=secret_sha256,
                scopes=list(scopes),
                note=note,
                created_at=self._now(),
            )
        )

    def get(self, id: str) -> RowMapping | None:
        query = select(tokens).where(tokens.c.id == id)
        return self._connection.execute(query).mappings().first()

    def all(self) -> Sequence[RowMapping]:
        query = select(tokens).order_by(tokens.c.created_at, tokens.c.id)
        return self._connection.execute(query).mappings().all()

    def revoke(self, id: str) -> bool:
        """Revoke a token; False where there is no such token, or it was revoked before."""
        written = self._connection.execute(
            update(tokens)
            .where(tokens.c.id == id, tokens.c.revoked_at.is_(None))
            .values(revoked_at=self._now())
        )
        return bool(written.rowcount == 1)

    def count(self) -> int:
        """How many tokens were ever created, the revoked ones among them."""
        return int(self._connection.execute(select(func.count()).select_from(tokens)).scalar_one())

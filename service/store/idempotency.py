"""Answers given to requests that carried an Idempotency-Key."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import Connection, delete, insert, select
from sqlalchemy.exc import IntegrityError

from ridgeline.service.errors import RequestInFlight
from ridgeline.service.store.tables import idempotency_keys

KEEP_SECONDS = 24 * 3_600
"""A key is remembered for a day: longer than any client goes on repeating a request."""


class IdempotencyKeys:
    def __init__(self, connection: Connection, now: Callable[[], float]) -> None:
        self._connection = connection
        self._now = now

    def get(self, scope: str, key: str) -> Mapping[str, Any] | None:
        query = select(idempotency_keys).where(
            idempotency_keys.c.scope == scope,
            idempotency_keys.c.key == key,
            idempotency_keys.c.created_at > self._now() - KEEP_SECONDS,
        )
        row = self._connection.execute(query).first()
        return None if row is None else row._asdict()

    def insert(self, *, scope: str, key: str, body_sha256: str, status: int, answer: Any) -> None:
        """Remember an answer, in the transaction of its effect, and forget old ones.

        Raises:
            RequestInFlight: another process has just answered a request with this key.
        """
        self._connection.execute(
            delete(idempotency_keys).where(
                idempotency_keys.c.created_at <= self._now() - KEEP_SECONDS
            )
        )
        row = {
            "scope": scope,
            "key": key,
            "body_sha256": body_sha256,
            "status": status,
            "answer": answer,
            "created_at": self._now(),
        }
        try:
            self._connection.execute(insert(idempotency_keys).values(row))
        except IntegrityError as exc:
            raise RequestInFlight("a request with this Idempotency-Key was just answered") from exc

"""What keeping the answers of repeatable requests costs."""

from __future__ import annotations

import pytest
from sqlalchemy import event

from ridgeline.service.store.session import Store


@pytest.mark.parametrize("migrated_url", ["sqlite"], indirect=True)
def test_expired_keys_are_found_by_their_age(store: Store) -> None:
    """Programs that train by themselves leave a hundred thousand keys an hour."""
    statements: list[str] = []
    with store.transaction() as tx:
        event.listen(
            tx.connection,
            "before_cursor_execute",
            lambda _connection, _cursor, statement, *_: statements.append(statement),
        )
        tx.idempotency.insert(scope="s", key="k", body_sha256="b", status=200, answer={})
        (delete,) = [statement for statement in statements if statement.startswith("DELETE")]
        plan = tx.connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {delete}", (0.0,)).all()
    assert "USING INDEX ix_rl_idempotency_keys_created_at" in str(plan)

"""find the idempotency keys that are a day old without reading all of them

Revision ID: 0005
Revises: 0004
"""

from __future__ import annotations

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index(
        op.f("ix_rl_idempotency_keys_created_at"), "rl_idempotency_keys", ["created_at"]
    )


def downgrade() -> None:
    op.drop_index(op.f("ix_rl_idempotency_keys_created_at"), table_name="rl_idempotency_keys")

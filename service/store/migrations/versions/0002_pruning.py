"""which version of the pruning rules ended a run

Revision ID: 0002
Revises: 0001
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # The check stands with its column, since SQLite adds none to a table that is there already.
    op.add_column(
        "rl_runs",
        sa.Column(
            "pruned_by_version",
            sa.BigInteger(),
            sa.CheckConstraint(
                "pruned_by_version IS NULL OR state = 'PRUNED'", name="ck_rl_runs_pruned_by_rules"
            ),
            nullable=True,
            comment="of the pruning rules that ended it",
        ),
    )


def downgrade() -> None:
    op.drop_column("rl_runs", "pruned_by_version")

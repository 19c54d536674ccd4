"""which failed trial another one tries again: each at most once

Revision ID: 0007
Revises: 0006
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "rl_trials",
        sa.Column(
            "retry_of", sa.Integer(), comment="number of the failed trial that it tries again"
        ),
    )
    op.create_index(
        op.f("ix_rl_trials_study_id_retry_of"), "rl_trials", ["study_id", "retry_of"], unique=True
    )


def downgrade() -> None:
    op.drop_index(op.f("ix_rl_trials_study_id_retry_of"), table_name="rl_trials")
    op.drop_column("rl_trials", "retry_of")

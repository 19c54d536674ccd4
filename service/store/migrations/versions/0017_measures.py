"""what can be seen of the weights that runs keep

Revision ID: 0017
Revises: 0016
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "rl_runs",
        sa.Column(
            "measures",
            sa.JSON(none_as_null=True),
            comment="what can be seen of the kept weights; of complete runs",
        ),
    )


def downgrade() -> None:
    op.drop_column("rl_runs", "measures")

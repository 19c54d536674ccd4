"""studies that lists leave out

Revision ID: 0012
Revises: 0011
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # The check stands with its column, since SQLite adds none to a table that is there already.
    op.add_column(
        "rl_studies",
        sa.Column(
            "archived",
            sa.Boolean(),
            sa.CheckConstraint(
                "NOT archived OR state IN ('COMPLETED', 'FAILED', 'CANCELLED')",
                name="ck_rl_studies_archived",
            ),
            nullable=False,
            server_default=sa.false(),
            comment="left out of lists",
        ),
    )


def downgrade() -> None:
    op.drop_column("rl_studies", "archived")

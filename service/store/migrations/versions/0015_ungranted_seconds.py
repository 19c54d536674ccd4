"""deadlines that the timekeeper has yet to set

Revision ID: 0015
Revises: 0014
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "rl_studies",
        sa.Column(
            "ungranted_seconds",
            sa.Float(53),
            comment="that the deadline comes from, until the timekeeper has set it",
        ),
    )


def downgrade() -> None:
    op.drop_column("rl_studies", "ungranted_seconds")

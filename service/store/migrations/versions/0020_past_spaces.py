"""spaces that studies had before they grew

Revision ID: 0020
Revises: 0019
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "rl_studies",
        sa.Column(
            "past_spaces",
            sa.JSON,
            nullable=False,
            server_default="[]",
            comment="each of the trials created before a revision",
        ),
    )


def downgrade() -> None:
    op.drop_column("rl_studies", "past_spaces")

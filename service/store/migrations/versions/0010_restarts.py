"""how often workers started the processes of their devices anew

Revision ID: 0010
Revises: 0009
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "rl_workers",
        sa.Column(
            "restarts",
            sa.JSON(),
            nullable=False,
            server_default="{}",
            comment="by device: how often its process was started anew",
        ),
    )


def downgrade() -> None:
    op.drop_column("rl_workers", "restarts")

"""how many slots of packs in training no run is in

Revision ID: 0003
Revises: 0002
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "rl_workers",
        sa.Column(
            "idle_slots",
            sa.JSON(),
            nullable=False,
            server_default="{}",
            comment="by device: slots of packs in training that no run is in",
        ),
    )


def downgrade() -> None:
    op.drop_column("rl_workers", "idle_slots")

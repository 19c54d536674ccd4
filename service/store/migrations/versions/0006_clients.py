"""which program an external run was handed to

Revision ID: 0006
Revises: 0005
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "rl_runs",
        sa.Column("client_id", sa.String(128), comment="of the external program it was handed to"),
    )


def downgrade() -> None:
    op.drop_column("rl_runs", "client_id")

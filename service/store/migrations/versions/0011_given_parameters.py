"""which parameters of an enqueued trial a person gave: the sampler chose the others

Revision ID: 0011
Revises: 0010
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "rl_trials",
        sa.Column(
            "given",
            sa.JSON(none_as_null=True),
            comment="names of the parameters of an enqueued trial that a person gave",
        ),
    )


def downgrade() -> None:
    op.drop_column("rl_trials", "given")

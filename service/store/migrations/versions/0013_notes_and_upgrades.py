"""notes of tokens, and which version of the program made a schema

Revision ID: 0013
Revises: 0012
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "rl_tokens",
        sa.Column("note", sa.String(256), comment="what people wrote to tell it from others"),
    )
    op.create_table(
        "rl_upgrades",
        sa.Column("revision", sa.String(32), nullable=False, comment="of the schema"),
        sa.Column(
            "program", sa.String(64), nullable=False, comment="version that brought it here first"
        ),
        sa.PrimaryKeyConstraint("revision", name=op.f("pk_rl_upgrades")),
    )


def downgrade() -> None:
    op.drop_table("rl_upgrades")
    op.drop_column("rl_tokens", "note")

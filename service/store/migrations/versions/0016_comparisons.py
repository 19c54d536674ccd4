"""comparisons, and which studies are theirs

Revision ID: 0016
Revises: 0015
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "rl_comparisons",
        sa.Column("id", _ID, nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("owner", sa.String(32), comment="id of the token that created it"),
        sa.Column("spec", sa.JSON(), nullable=False),
        sa.Column("told_to", sa.String(16), nullable=False, comment="what people told it last"),
        sa.Column("created_at", sa.Float(53), nullable=False),
        sa.CheckConstraint(
            "told_to IN ('run', 'pause', 'cancel')", name=op.f("ck_rl_comparisons_told_to")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_rl_comparisons")),
        sa.UniqueConstraint("name", name=op.f("uq_rl_comparisons_name")),
    )
    op.create_table(
        "rl_comparison_studies",
        sa.Column("study_id", _ID, autoincrement=False, nullable=False),
        sa.Column("comparison_id", _ID, nullable=False),
        sa.Column("arm", sa.String(48), nullable=False),
        sa.Column(
            "winner",
            sa.Integer(),
            comment="the trial of the search that it trains again; none: the search",
        ),
        sa.Column(
            "num_seen",
            sa.Integer(),
            comment="trials the search had when its winner was last looked for",
        ),
        sa.CheckConstraint(
            "winner IS NULL OR num_seen IS NULL",
            name=op.f("ck_rl_comparison_studies_search_or_fresh"),
        ),
        sa.ForeignKeyConstraint(
            ["study_id"], ["rl_studies.id"], name=op.f("fk_rl_comparison_studies_study_id")
        ),
        sa.ForeignKeyConstraint(
            ["comparison_id"],
            ["rl_comparisons.id"],
            name=op.f("fk_rl_comparison_studies_comparison_id"),
        ),
        sa.PrimaryKeyConstraint("study_id", name=op.f("pk_rl_comparison_studies")),
        sa.UniqueConstraint(
            "comparison_id",
            "arm",
            "winner",
            name=op.f("uq_rl_comparison_studies_comparison_id_arm_winner"),
        ),
    )
    op.create_index(
        op.f("ix_rl_comparison_studies_comparison_id_arm"),
        "rl_comparison_studies",
        ["comparison_id", "arm"],
        unique=True,
        sqlite_where=sa.text("winner IS NULL"),
        postgresql_where=sa.text("winner IS NULL"),
    )


def downgrade() -> None:
    op.drop_table("rl_comparison_studies")
    op.drop_table("rl_comparisons")

"""An answer's finished steps, with the thinking that a later message sends back."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Go to this version."""
    op.add_column("messages", sa.Column("steps", sa.JSON()))


def downgrade() -> None:
    """Go back to the one before."""
    op.drop_column("messages", "steps")

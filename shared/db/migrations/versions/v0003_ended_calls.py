"""Whether a tool call has ended: a result may be JSON's null, which is not none."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Go to this version."""
    op.add_column("tool_calls", sa.Column("ended", sa.Boolean()))


def downgrade() -> None:
    """Go back to the one before."""
    op.drop_column("tool_calls", "ended")

"""More ways for an attempt to end."""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0017"
down_revision = "0016"


def upgrade() -> None:
    sql = Path(__file__).parent.parent / "0017_outcomes.sql"
    # One driver call: the file has no parameters, so a colon in it is only a colon.
    op.get_bind().exec_driver_sql(sql.read_text().replace("%", "%%"))

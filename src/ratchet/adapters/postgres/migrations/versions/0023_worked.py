"""When attempts begin to work."""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0023"
down_revision = "0022"


def upgrade() -> None:
    sql = Path(__file__).parent.parent / "0023_worked.sql"
    # One driver call: the file has no parameters, so a colon in it is only a colon.
    op.get_bind().exec_driver_sql(sql.read_text().replace("%", "%%"))

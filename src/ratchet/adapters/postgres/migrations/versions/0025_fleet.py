"""Machines that several projects share."""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0025"
down_revision = "0024"


def upgrade() -> None:
    sql = Path(__file__).parent.parent / "0025_fleet.sql"
    # One driver call: the file has no parameters, so a colon in it is only a colon.
    op.get_bind().exec_driver_sql(sql.read_text().replace("%", "%%"))

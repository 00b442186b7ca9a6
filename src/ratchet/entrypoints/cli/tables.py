"""Lists as people read them: no lines around, and what one would type again is never cut."""

from __future__ import annotations

from rich.table import Column, Table


def list_table(first: str, *more: str) -> Table:
    """The first column is the name of a row: an id, a day."""
    return Table(Column(first, no_wrap=True), *more, box=None)


def minute(moment: str) -> str:
    """A moment of the API's, as far as people care, in UTC."""
    return moment[:16].replace("T", " ")

"""Bring a database to the schema of this version: forward only, once, whoever comes first."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError

from ratchet.core.errors import Unavailable

_LOCK = 7203000


def sqlalchemy_url(url: str) -> str:
    """The same address for libraries that speak through SQLAlchemy."""
    return url.replace("postgresql://", "postgresql+psycopg://", 1)


def migrate(url: str) -> None:
    """Run all missing migrations under an advisory lock.  Raises `Unavailable`."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    engine = create_engine(sqlalchemy_url(url))
    try:
        with engine.connect() as connection:
            connection.execute(text(f"SELECT pg_advisory_lock({_LOCK})"))
            connection.commit()
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
            connection.commit()
            connection.execute(text(f"SELECT pg_advisory_unlock({_LOCK})"))
            connection.commit()
    except OperationalError as error:
        raise Unavailable(f"PostgreSQL does not answer: {error.orig}") from error
    finally:
        engine.dispose()

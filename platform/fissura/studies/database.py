"""Checks a study's database before Optuna reads it, which would raise a dozen kinds of errors."""

import sqlite3
from contextlib import closing
from pathlib import Path

from fissura.core.files import sqlite_uri

DATABASE = "study.db"
FILE_SUFFIXES = ("", "-journal", "-wal", "-shm")
"""Suffixes of the files that SQLite makes of a database."""


def database_url(path: Path) -> str:
    """The database at `path`, as Optuna and optuna-dashboard name it; whatever that holds is read as a
    path."""
    from sqlalchemy import URL

    query = {"uri": "true"}
    return URL.create("sqlite", database=sqlite_uri(path), query=query).render_as_string()


def database_fault(path: Path, *, name: str) -> str:
    """The fault of the database at `path`, which holds the study `name`; empty if it has none, or
    cannot be reached now."""
    try:
        # a journal that a killed process left is rolled back, which a connection to read cannot
        with closing(sqlite3.connect(f"{sqlite_uri(path)}?mode=rw", uri=True, timeout=60)) as database:
            (verdict,) = database.execute("PRAGMA quick_check(1)").fetchone()
            if verdict != "ok":
                return " ".join(str(verdict).split())[:200]
            tables = {table for (table,) in database.execute("SELECT name FROM sqlite_master")}
            if "studies" not in tables:
                return "it holds no trials"
            named = "SELECT count(*) FROM studies WHERE study_name = ?"
            if database.execute(named, (name,)).fetchone() == (0,):
                return f"it does not hold the study {name!r}"
    except sqlite3.OperationalError:
        return ""
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
        return str(error)
    return ""

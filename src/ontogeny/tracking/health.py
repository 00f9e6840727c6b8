"""How a store is: whether it answers, can be written to, and which MLflow wrote it. Nothing is changed by asking."""

from __future__ import annotations

import logging
import os
import sqlite3
import urllib.request
from contextlib import closing
from pathlib import Path
from typing import Literal, NamedTuple
from urllib.parse import quote

from ontogeny.tracking.store import TIMEOUT_S, Store, prepare_environment

State = Literal["ready", "new", "older", "newer", "read_only", "unreachable", "unusable"]


class Health(NamedTuple):
    """What was found."""

    state: State
    found: str
    """In words."""


def health_of(store: Store) -> Health:
    """Look at a store without writing to it."""
    prepare_environment(store.is_server)
    if store.database is not None:
        return _of_file(store, store.database)
    reason = store.unreachable()
    if reason is not None:
        return Health("unreachable", reason)
    return _of_server(store) if store.is_server else _of_database(store)


def _of_file(store: Store, database: Path) -> Health:
    if not database.exists():
        home = next(folder for folder in database.parents if folder.exists())
        if not os.access(home, os.W_OK):
            return Health("read_only", f"{database} does not exist and {home} cannot be written to")
        return Health("new", f"{database} will be made by the first publish")
    try:
        with closing(sqlite3.connect(f"file:{quote(str(database))}?mode=ro", uri=True)) as connection:
            found = connection.execute("select version_num from alembic_version").fetchone()
    except sqlite3.Error as error:
        return Health("unusable", f"{database} is no MLflow database ({error})")
    state = _compared(None if found is None else str(found[0]))
    if state != "ready":
        return Health(state, f"{database} was written by an {state} MLflow than {_version()}")
    reason = f"{store.uri} says mode=ro" if store.read_only else _refusal(database)
    if reason:
        return Health("read_only", reason)
    return Health("ready", f"{database}, MLflow {_version()}")


def _refusal(database: Path) -> str:
    """Why the file cannot be written to; empty if it can. A writer at work is no reason."""
    try:
        with closing(sqlite3.connect(f"file:{quote(str(database))}?mode=rw", uri=True, timeout=1)) as connection:
            connection.execute("begin immediate")
            connection.execute("rollback")
    except sqlite3.OperationalError as error:
        return "" if "locked" in str(error) else f"{database} cannot be written to ({error})"
    if not os.access(database.parent, os.W_OK):
        return f"{database.parent} cannot be written to"
    return ""


def _of_database(store: Store) -> Health:
    import sqlalchemy
    from mlflow.store.db.utils import _get_schema_version
    from sqlalchemy.exc import SQLAlchemyError

    try:
        engine = sqlalchemy.create_engine(store.uri)
        shown = str(engine.url.render_as_string(hide_password=True))
        if not sqlalchemy.inspect(engine).has_table("alembic_version"):
            return Health("new", f"{shown} is empty; the first publish makes the tables")
        state = _compared(_get_schema_version(engine))
    except (SQLAlchemyError, ImportError) as error:
        return Health("unusable", str(error).strip().splitlines()[0])
    return Health(state, shown if state == "ready" else f"{shown} was written by an {state} MLflow than {_version()}")


def _of_server(store: Store) -> Health:
    """A server looks after its own database; what can be asked is its version."""
    try:
        with urllib.request.urlopen(f"{store.uri.rstrip('/')}/version", timeout=TIMEOUT_S) as answer:
            theirs = answer.read(100).decode(errors="replace").strip()
    except OSError as error:
        theirs = f"unknown ({error})"
    return Health("ready", f"{store.uri} answers; its MLflow is {theirs}, ours {_version()}")


def _compared(revision: str | None) -> State:
    """Whether the tables are those of the installed MLflow, or of an older or a newer one."""
    from alembic.script import ScriptDirectory
    from alembic.util.exc import CommandError
    from mlflow.store.db.utils import _get_alembic_config, _get_latest_schema_revision

    logging.getLogger("alembic").setLevel(logging.WARNING)
    if revision == _get_latest_schema_revision():
        return "ready"
    known = ScriptDirectory.from_config(_get_alembic_config(""))
    try:
        return "older" if revision is None or known.get_revision(revision) is not None else "newer"
    except CommandError:
        return "newer"


def _version() -> str:
    from importlib.metadata import version

    return version("mlflow")

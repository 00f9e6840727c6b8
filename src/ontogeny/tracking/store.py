"""Which store, whether it answers, and who may write to it now."""

from __future__ import annotations

import hashlib
import logging
import os
import socket
import sqlite3
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qs, quote, unquote, urlsplit

from ontogeny.core.errors import OntogenyError
from ontogeny.tracking.views import tasks_of_views, view_address

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger(__name__)

TIMEOUT_S: Final = 5.0
_TRIES: Final = 2
_DEFAULT_PORTS: Final = {"http": 80, "https": 443, "postgresql": 5432, "mysql": 3306, "mssql": 1433}


@dataclass(frozen=True)
class Store:
    """A tracking store."""

    uri: str

    @property
    def database(self) -> Path | None:
        """The SQLite file, where there is one."""
        parts = urlsplit(self.uri)
        return Path(unquote(parts.path)[1:].removeprefix("file:")) if parts.scheme == "sqlite" else None

    @property
    def read_only(self) -> bool:
        """Whether the address itself forbids writing: ``sqlite:///file:/PATH/mlflow.db?mode=ro&uri=true``."""
        return self.database is not None and "ro" in parse_qs(urlsplit(self.uri).query).get("mode", ())

    @property
    def is_server(self) -> bool:
        """Whether an MLflow server stands between."""
        return self.uri.startswith(("http://", "https://"))

    def artifact_location(self, experiment: str) -> str | None:
        """Where an experiment's files go: beside the SQLite file; a server or another database decides itself."""
        if self.database is None:
            return None
        return (self.database.parent / "artifacts" / experiment).as_uri()

    def unreachable(self) -> str | None:
        """Why nothing can be published there, or none. A server is asked twice, for five seconds each."""
        if self.database is not None:
            return f"{self.uri} is opened read-only (mode=ro)" if self.read_only else None
        parts = urlsplit(self.uri)
        host = parts.hostname
        port = parts.port or _DEFAULT_PORTS.get(parts.scheme.partition("+")[0])
        if host is None or port is None:
            return f"{self.uri} names no host"
        for attempt in range(_TRIES):
            try:
                socket.create_connection((host, port), timeout=TIMEOUT_S).close()
            except OSError as error:
                log.debug("Attempt %d to reach %s failed: %s", attempt + 1, self.uri, error)
                reason = f"{host}:{port} does not answer ({error})"
            else:
                return self._refusal() if self.is_server else None
        return reason

    def _refusal(self) -> str | None:
        """What a server that accepts connections says if it is no healthy MLflow."""
        import urllib.error
        import urllib.request

        try:
            with urllib.request.urlopen(f"{self.uri.rstrip('/')}/health", timeout=TIMEOUT_S) as answer:
                return None if answer.status == 200 else f"{self.uri}/health answers {answer.status}"
        except urllib.error.HTTPError as error:
            # A server that asks for a password for /health may still take our runs: it will say so then.
            return None if error.code in (401, 403) else f"{self.uri}/health answers {error.code}: no MLflow server?"
        except OSError as error:
            return f"{self.uri}/health does not answer ({error})"

    def refuse_newer(self) -> None:
        """Refuse, before any work, a SQLite file whose tables the installed MLflow does not know; imports no MLflow.

        Raises:
            OntogenyError: the database was written by a newer MLflow.
        """
        mlflow = find_spec("mlflow")
        if self.database is None or not self.database.exists() or mlflow is None or mlflow.origin is None:
            return
        try:
            with closing(sqlite3.connect(f"file:{quote(str(self.database))}?mode=ro", uri=True)) as connection:
                found = connection.execute("select version_num from alembic_version").fetchone()
        except sqlite3.Error:
            return  # No database of MLflow's: publishing says so.
        known = Path(mlflow.origin).parent / "store" / "db_migrations" / "versions"
        if found is not None and not any(known.glob(f"{found[0]}_*.py")):
            raise _newer(self.uri, f"its tables are of revision {found[0]}")

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold this machine's lock for publishing to the store; wait for another publisher if need be."""
        from filelock import FileLock, Timeout

        lock = FileLock(self._lock_file())
        try:
            lock.acquire(timeout=0)
        except Timeout:
            log.warning("Waiting for another publisher to %s.", self.uri)
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def client(self) -> MlflowClient:
        """A client; a new SQLite store gets its tables, one that an older MLflow wrote is brought up to date.

        Raises:
            OntogenyError: the database was written by a newer MLflow.
        """
        prepare_environment(self.is_server)
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.WARNING)
        if self.database is not None and not self.read_only:
            self.database.parent.mkdir(parents=True, exist_ok=True)
            _write_ahead()
        try:
            client = MlflowClient(tracking_uri=self.uri)
            client.search_experiments(max_results=1)
            return client
        except MlflowException as error:
            if "out-of-date database schema" not in str(error) or self.database is None:
                raise
        return self._upgraded()

    def _upgraded(self) -> MlflowClient:
        import sqlalchemy
        from alembic.util.exc import CommandError
        from mlflow import MlflowClient
        from mlflow.store.db.utils import _upgrade_db

        try:
            _upgrade_db(sqlalchemy.create_engine(self.uri))
        except CommandError as error:
            raise _newer(self.uri, str(error)) from None
        return MlflowClient(tracking_uri=self.uri)

    def _lock_file(self) -> Path:
        if self.database is not None:
            self.database.parent.mkdir(parents=True, exist_ok=True)
            return self.database.with_name(f".{self.database.name}.publish.lock")
        folder = Path(tempfile.gettempdir()) / f"ontogeny-{os.getuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        return folder / f"publish-{hashlib.sha256(self.uri.encode()).hexdigest()[:16]}.lock"


def _newer(uri: str, why: str) -> OntogenyError:
    return OntogenyError(
        f"{uri} was written by a newer MLflow ({why}): install that version, or move the file away and run "
        "`ontogeny publish`, which writes it anew from data/."
    )


def open_store(project: Path, uri: str | None = None) -> Store:
    """The store of a project: MLFLOW_TRACKING_URI wins, then `uri` (params), then mlruns/mlflow.db in the project.

    Raises:
        OntogenyError: a plain folder, which MLflow no longer takes.
    """
    chosen = os.environ.get("MLFLOW_TRACKING_URI") or uri or f"sqlite:///{project.resolve() / 'mlruns' / 'mlflow.db'}"
    if chosen.startswith("sqlite:///") and not chosen.startswith(("sqlite:////", "sqlite:///file:")):
        chosen = f"sqlite:///{(project / chosen.removeprefix('sqlite:///')).resolve()}"
    if "://" not in chosen or chosen.startswith("file:"):
        raise OntogenyError(
            f"{chosen!r} is a folder, which MLflow does not take as a store any more: give sqlite:///PATH/mlflow.db, "
            "a database or the address of a server, or unset MLFLOW_TRACKING_URI."
        )
    return Store(chosen)


def ui_command(project: Path, *, uri: str | None = None, host: str = "127.0.0.1", port: int = 5000) -> list[str]:
    """The command that serves MLflow's user interface on a project's store; the log says where to look.

    Raises:
        OntogenyError: the store is a server, which has its own; or nothing was published yet.
    """
    store = open_store(project, uri)
    if store.is_server:
        raise OntogenyError(f"{store.uri} is an MLflow server and has its own user interface: open it in a browser.")
    if store.database is not None and not store.database.exists():
        raise OntogenyError(f"{store.database} does not exist yet: run `make study` or `ontogeny publish` first.")
    for title, address in view_addresses(store, f"http://{host}:{port}/").items():
        log.info("%s: %s", title, address)
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", store.uri]
    if store.database is not None:
        command += ["--default-artifact-root", (store.database.parent / "artifacts").as_uri()]
    return [*command, "--workers", "1", "--host", host, "--port", str(port)]


def view_addresses(store: Store, base: str) -> dict[str, str]:
    """Where a browser finds the saved views: by title."""
    addresses = {}
    for experiment in store.client().search_experiments():
        for task in tasks_of_views(experiment.tags):
            kind = experiment.name.rpartition("/")[2]
            addresses[f"{experiment.name}, {task}"] = base + view_address(kind, experiment.experiment_id, task)
    return addresses


def _write_ahead() -> None:
    """From now on this process opens SQLite files with a write-ahead log.

    MLflow commits about eight times a run, and in SQLite's default mode each commit waits for the disk twice or more:
    half of the time of publishing. With the log a power cut can lose the last commits, which the next publish writes
    again, and never the file; readers (the UI) are not blocked meanwhile.
    """
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    if not event.contains(Engine, "connect", _set_pragmas):
        event.listen(Engine, "connect", _set_pragmas)


def _set_pragmas(connection: object, _record: object) -> None:
    if isinstance(connection, sqlite3.Connection):
        with suppress(sqlite3.OperationalError):  # A reader is busy: slower, and right all the same.
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")


def prepare_environment(server: bool) -> None:
    """Before mlflow is imported: send nothing anywhere unless the user said so, and do not hang on a dead server."""
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true", "GIT_PYTHON_REFRESH": "quiet"}
    if server:
        quiet |= {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "30"}
        quiet["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"  # Two lines a run.
    for name, value in quiet.items():
        os.environ.setdefault(name, value)

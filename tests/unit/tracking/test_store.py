"""Which store is meant, and what a store that does not answer costs."""

from __future__ import annotations

import socket
import sqlite3
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from mlflow import MlflowClient
from test_publishing import blank, projection, runs_of, small, store

__all__ = ["blank", "store"]

from ontogeny.core.errors import OntogenyError
from ontogeny.params import load_params
from ontogeny.tracking import Store, health_of, open_store, publish, settings_of, ui_command


@pytest.fixture(autouse=True)
def _no_server_of_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def test_the_environment_wins_over_params_and_params_over_the_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert open_store(tmp_path).database == tmp_path / "mlruns" / "mlflow.db"
    assert open_store(tmp_path, "sqlite:////data/a.db").database == Path("/data/a.db")
    assert open_store(tmp_path, "sqlite:///here/a.db").database == tmp_path / "here" / "a.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracking.example:5000")
    chosen = open_store(tmp_path, "sqlite:////data/a.db")
    assert chosen == Store("http://tracking.example:5000")
    assert chosen.is_server
    assert chosen.artifact_location("a/b") is None


def test_artifacts_lie_beside_the_database(tmp_path: Path) -> None:
    location = open_store(tmp_path).artifact_location("default/checkpoints")
    assert location == (tmp_path / "mlruns" / "artifacts" / "default" / "checkpoints").as_uri()


@pytest.mark.parametrize("folder", ["mlruns", "file:///tmp/mlruns"])
def test_a_folder_is_refused(tmp_path: Path, folder: str) -> None:
    with pytest.raises(OntogenyError, match="does not take as a store"):
        open_store(tmp_path, folder)


def test_a_dead_server_is_reported_quickly_and_later_publishing_adds_everything_once(store: Store) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    started = time.monotonic()
    report = publish(projection(small()), Store(f"http://127.0.0.1:{port}"))
    assert time.monotonic() - started < 11
    assert (report.added, report.unpublished, report.complete) == (0, 8, False)
    assert f"127.0.0.1:{port} does not answer" in report.reason
    assert publish(projection(small()), store).added == 8
    assert publish(projection(small()), store).added == 0


@pytest.fixture
def silent() -> Iterator[str]:
    """Accepts connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def test_a_server_that_hangs_costs_seconds_not_minutes(silent: str) -> None:
    started = time.monotonic()
    assert "does not answer" in str(Store(silent).unreachable())
    assert time.monotonic() - started < 11


class _NoMlflow(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_error(404)

    def log_message(self, *arguments: object) -> None:
        del arguments


def test_a_web_server_that_is_no_mlflow_is_named() -> None:
    with HTTPServer(("127.0.0.1", 0), _NoMlflow) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        reason = Store(f"http://127.0.0.1:{server.server_address[1]}").unreachable()
        server.shutdown()
    assert "answers 404: no MLflow server?" in str(reason)


def test_a_store_that_goes_away_half_way_is_reported_and_finished_later(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[object] = []
    real = MlflowClient.set_terminated

    def breaks(client: MlflowClient, *arguments: object, **options: object) -> None:
        if len(written) == 2:
            raise OSError("disk full")
        written.append(arguments)
        real(client, *arguments, **options)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(MlflowClient, "set_terminated", breaks)
        report = publish(projection(small()), store)
    assert (report.added, report.unpublished, report.complete) == (2, 6, False)
    assert "disk full" in report.reason
    later = publish(projection(small()), store)
    assert (later.added, later.kept, later.removed, later.complete) == (6, 2, 1, True)
    assert len(runs_of(store)) == 6


def test_a_database_of_a_newer_mlflow_is_refused_with_advice(tmp_path: Path, blank: Path) -> None:
    copy = tmp_path / "newer.db"
    Store(f"sqlite:///{copy}").refuse_newer()
    with closing(sqlite3.connect(blank)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
        Store(f"sqlite:///{copy}").refuse_newer()
        target.execute("update alembic_version set version_num = 'ffffffffffff'")
        target.commit()
    with pytest.raises(OntogenyError, match="newer MLflow"):
        publish(projection(small()), Store(f"sqlite:///{copy}"))
    with pytest.raises(OntogenyError, match=r"newer MLflow .its tables are of revision ffffffffffff"):
        Store(f"sqlite:///{copy}").refuse_newer()


def test_command_of_the_ui(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(OntogenyError, match="run `make study`"):
        ui_command(tmp_path)
    (tmp_path / "mlruns").mkdir()
    (tmp_path / "mlruns" / "mlflow.db").touch()
    with caplog.at_level("INFO"):
        command = ui_command(tmp_path, port=5123)
    assert "viewStateShareKey" not in caplog.text, "an empty store has no views"
    assert command[:3] == [sys.executable, "-m", "mlflow"]
    assert f"sqlite:///{tmp_path}/mlruns/mlflow.db" in command
    assert command[-1] == "5123"
    with pytest.raises(OntogenyError, match="open it in a browser"):
        ui_command(tmp_path, uri="http://tracking.example:5000")


def test_runs_show_the_settings_that_numbers_depend_on() -> None:
    chosen = settings_of(load_params(Path(__file__).parents[3] / "params.yaml"))
    assert set(chosen) == {"datasets", "analyse", "trajectory"}
    assert chosen["analyse"]["search"]["threshold"] == 0.8


def test_a_read_only_store_is_said_and_left_as_it_is(store: Store) -> None:
    assert publish(projection(small()), store).added == 8
    assert store.database is not None
    with closing(sqlite3.connect(store.database)) as connection:
        connection.execute("pragma wal_checkpoint(truncate)")
    before = store.database.read_bytes()
    closed = Store(f"sqlite:///file:{store.database}?mode=ro&uri=true")
    assert (closed.read_only, closed.database) == (True, store.database)
    assert open_store(store.database.parent, closed.uri) == closed
    report = publish(projection(small("other settings")), closed)
    assert (report.added, report.kept, report.retired, report.complete) == (0, 0, 0, False)
    assert "is opened read-only (mode=ro)" in report.reason
    assert health_of(closed).state == "read_only"
    assert len(runs_of(closed)) == 6, "it can be read"
    assert store.database.read_bytes() == before
    assert not [path for path in store.database.parent.iterdir() if path.name.startswith("file:")]

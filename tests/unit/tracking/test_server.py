"""The same code against `mlflow server`."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from test_publishing import blank, fresh, projection, runs_of, small

from ontogeny.tracking import Store, publish

__all__ = ["blank"]
pytestmark = pytest.mark.slow


@contextmanager
def served(folder: Path, port: int) -> Iterator[Store]:
    """An MLflow server on a SQLite file that serves artifacts too; killed with all its processes at the end."""
    database = f"sqlite:///{folder}/mlruns/mlflow.db"
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", database, "--port", str(port),
               "--artifacts-destination", str(folder / "served"), "--workers", "1"]  # fmt: skip
    environment = os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true"}
    server = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    store = Store(f"http://127.0.0.1:{port}")
    try:
        deadline = time.monotonic() + 120
        while store.unreachable() is not None:
            assert server.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.5)
        yield store
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def test_a_server_that_comes_late_gets_everything_once(tmp_path: Path, blank: Path) -> None:
    fresh(tmp_path, blank)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    gone = publish(projection(small()), Store(f"http://127.0.0.1:{port}"))
    assert (gone.added, gone.unpublished) == (0, 8)
    with served(tmp_path, port) as store:
        first = publish(projection(small()), store)
        assert (first.added, first.complete) == (8, True)
        assert publish(projection(small()), store).added == 0
        runs = runs_of(store)
        assert {r.info.status for r in runs} == {"FINISHED"}
        (run,) = [r for r in runs if r.data.tags["job"] == small().fingerprints[1722, "ioi"]]
    assert run.info.artifact_uri.startswith("mlflow-artifacts:")
    assert list((tmp_path / "served").rglob(f"{run.info.run_id}/artifacts/circuit/edges.csv"))

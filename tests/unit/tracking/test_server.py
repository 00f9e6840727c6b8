"""The same code against `mlflow server`."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_publishing import blank, fresh, projection, runs_of, small

from ontogeny.tracking import Store, publish
from support.server import free_port, served

__all__ = ["blank"]
pytestmark = pytest.mark.slow


def test_a_server_that_comes_late_gets_everything_once(tmp_path: Path, blank: Path) -> None:
    database, port = fresh(tmp_path, blank), free_port()
    gone = publish(projection(small()), Store(f"http://127.0.0.1:{port}"))
    assert (gone.added, gone.unpublished) == (0, 8)
    with served(database.uri, tmp_path / "served", port) as server:
        store = server.store
        first = publish(projection(small()), store)
        assert (first.added, first.complete) == (8, True)
        assert publish(projection(small()), store).added == 0
        runs = runs_of(store)
        assert {r.info.status for r in runs} == {"FINISHED"}
        (run,) = [r for r in runs if r.data.tags["job"] == small().fingerprints[1722, "ioi"]]
    assert run.info.artifact_uri.startswith("mlflow-artifacts:")
    assert list((tmp_path / "served").rglob(f"{run.info.run_id}/artifacts/circuit/edges.csv"))

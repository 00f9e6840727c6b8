"""Verdicts in MLflow: one run for each state of them, nothing twice."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from ontogeny.params import ClaimsParams
from ontogeny.series.claims import ALL, Claim, claims_table, texts
from ontogeny.tracking.claims import ClaimsProjection, publish_claims
from ontogeny.tracking.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(f"sqlite:///{tmp_path / 'mlruns' / 'mlflow.db'}")


def table(**verdicts: str) -> pd.DataFrame:
    """Every claim undecided but for those that are named."""
    rules = ClaimsParams()
    wholes = [Claim(name, ALL, verdicts.get(name, "undecided"), "why", 0.5, 0.25) for name in texts(rules)]  # type: ignore[arg-type]
    return claims_table([*wholes[:1], Claim("C1", "ioi", "supported", "near"), *wholes[1:]], rules)


def projection(claims: pd.DataFrame) -> ClaimsProjection:
    rules = ClaimsParams().model_dump(mode="json")
    return ClaimsProjection(claims, "test", 1_000_000_000.0, rules, {"claims.png": b"a picture"})


def runs(store: Store, current: str) -> list[Run]:
    client = MlflowClient(store.uri)
    experiment = client.get_experiment_by_name("test/claims")
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id], f"tags.current = '{current}'"))


def test_one_run_for_each_state_of_the_verdicts(store: Store) -> None:
    report = publish_claims(projection(table(C1="supported")), store)
    assert (report.planned, report.added, report.complete) == (1, 1, True)
    again = publish_claims(dataclasses.replace(projection(table(C1="supported")), moment=2e9), store)
    assert (again.added, again.kept, again.retired) == (0, 1, 0)
    (run,) = runs(store, "true")
    assert run.info.status == "FINISHED"
    assert run.data.tags["verdict.C1"] == "supported"
    assert run.data.tags["verdict.C2"] == "undecided"
    assert (run.data.metrics["C1/statistic"], run.data.metrics["C1/low"]) == (0.5, 0.25)
    assert "C1/high" not in run.data.metrics, "it is not defined"
    assert run.data.params["least_members"] == "3"
    folder = Path(run.info.artifact_uri.removeprefix("file://"))
    assert sorted(path.name for path in folder.iterdir()) == ["claims.csv", "claims.json", "claims.png"]
    assert json.loads((folder / "claims.json").read_text())["C1"]["parts"]["ioi"]["verdict"] == "supported"

    changed = publish_claims(projection(table(C1="contradicted")), store)
    assert (changed.added, changed.retired) == (1, 1)
    assert [run.data.tags["verdict.C1"] for run in runs(store, "true")] == ["contradicted"]
    assert [run.data.tags["verdict.C1"] for run in runs(store, "false")] == ["supported"]
    back = publish_claims(projection(table(C1="supported")), store)
    assert (back.added, back.kept, back.retired) == (0, 1, 1)


def test_a_store_that_is_not_there_is_reported() -> None:
    report = publish_claims(projection(table()), Store("http://127.0.0.1:9"))
    assert (report.added, report.unpublished, bool(report.reason)) == (0, 1, True)

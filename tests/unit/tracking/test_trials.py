"""Studies over settings in MLflow: a run a trial under a run a study, nothing twice."""

import dataclasses
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from ontogeny.core.tuning import Setting, TuningRecord
from ontogeny.tracking.store import Store
from ontogeny.tracking.trials import Told, TuningProjection, publish_tuning, unknown
from support.tuning import record


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(f"sqlite:///{tmp_path / 'mlruns' / 'mlflow.db'}")


def projection(known: TuningRecord, **more: object) -> TuningProjection:
    chosen = {"study": "test", "files": {"trials.png": b"a picture"}, "now": 2_000_000_000.0, "told": unknown} | more
    return TuningProjection(known, **chosen)  # type: ignore[arg-type]


def runs(store: Store, kind: str, current: str = "true") -> list[Run]:
    client = MlflowClient(store.uri)
    experiment = client.get_experiment_by_name("test/tuning")
    assert experiment is not None
    query = f"tags.kind = '{kind}' and tags.current = '{current}'"
    return list(client.search_runs([experiment.experiment_id], query, max_results=1000))


def test_a_run_a_trial_under_a_run_a_study(store: Store) -> None:
    known = record()

    def told(s: Setting) -> Told:
        return Told(1_000_000_000.0 + s.steps, 1.5)

    report = publish_tuning([projection(known, told=told)], store)
    assert (report.planned, report.added, report.kept, report.complete) == (10, 10, 0, True)
    (parent,) = runs(store, "study")
    children = runs(store, "trial")
    assert len(children) == len(known.trials)
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent.info.run_id}
    assert {run.info.status for run in (parent, *children)} == {"FINISHED"}
    paper, *_ = [run for run in children if run.data.tags["baseline"] == "paper"]
    assert paper.data.params["steps"] == "5"
    assert paper.data.metrics["edges"] == pytest.approx(known.trials[4].edges)
    assert paper.data.metrics["seconds"] == 1.5
    assert paper.data.metrics["at/large-s0-8/tune"] == pytest.approx(
        known.trials[4].evaluations["large-s0@8"].tune.value
    )
    assert paper.info.start_time == 1_000_000_005_000
    assert (paper.data.tags["feasible"], paper.data.tags["front"]) == ("true", "true")
    assert "Recommended: eap_ig (m = 5, right)" in parent.data.tags["mlflow.note.content"]
    assert parent.data.metrics["trials"] == 9
    assert [f.path for f in MlflowClient(store.uri).list_artifacts(parent.info.run_id)] == ["trials.png"]


def test_published_again_nothing_is_added(store: Store) -> None:
    publish_tuning([projection(record())], store)
    slower = tuple(
        dataclasses.replace(t, evaluations={n: dataclasses.replace(e, seconds=7.0) for n, e in t.evaluations.items()})
        for t in record().trials
    )
    report = publish_tuning([projection(dataclasses.replace(record(), trials=slower))], store)
    assert (report.added, report.kept, report.retired) == (0, 10, 0)
    assert len(runs(store, "trial")) == 9


def test_a_study_that_goes_on_keeps_its_run(store: Store) -> None:
    whole = record()
    part = dataclasses.replace(whole, trials=whole.trials[:4], front=())
    publish_tuning([projection(part)], store)
    (before,) = runs(store, "study")
    report = publish_tuning([projection(whole, files={"history.png": b"more"})], store)
    assert (report.added, report.kept) == (5, 5)
    (after,) = runs(store, "study")
    assert after.info.run_id == before.info.run_id
    assert (before.data.metrics["trials"], after.data.metrics["trials"]) == (4, 9)
    files = [f.path for f in MlflowClient(store.uri).list_artifacts(after.info.run_id)]
    assert files == ["history.png", "trials.png"]


def test_other_settings_retire_the_runs_of_this_study_only(store: Store) -> None:
    known = record()
    other = dataclasses.replace(known, name="sva", task="sva")
    publish_tuning([projection(known), projection(other)], store)
    report = publish_tuning([projection(dataclasses.replace(known, target=0.9))], store)
    assert report.retired == 10
    assert {run.data.tags["tuning"] for run in runs(store, "trial", "false")} == {"ioi"}
    assert len([run for run in runs(store, "trial") if run.data.tags["tuning"] == "sva"]) == 9


def test_nothing_to_publish_asks_no_store() -> None:
    report = publish_tuning([], Store("http://127.0.0.1:9"))
    assert report.complete
    assert report.planned == 0


def test_a_store_that_is_gone_is_reported(store: Store) -> None:
    report = publish_tuning([projection(record())], Store("http://127.0.0.1:9"))
    assert not report.complete
    assert report.unpublished == 10
    assert store.database is not None

"""Publishing into real SQLite stores: what is there afterwards is asked of MLflow's own client."""

from __future__ import annotations

import base64
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
import zlib
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run, ViewType

from ontogeny.figures import draw_bundle
from ontogeny.params import AnalyseParams, TrajectoryParams
from ontogeny.records import MemberRecord
from ontogeny.series import follow, leading_head, measures, mechanism_measures, role_table
from ontogeny.tracking import Projection, Store, open_store, publish, view_addresses
from support.synthetic_study import member

STEPS = (0, 512, 1722)
TASKS = ("ioi", "sva")
FINISHED_AT = 1_750_000_000.0
SETTINGS = {"analyse": AnalyseParams().model_dump(mode="json"), "trajectory": {"sustain": 2}, "other": {"x": 1}}


def projection(*records: MemberRecord, bundle: Callable[[str], bytes | None] = lambda _: None) -> Projection:
    return Projection(
        records=records,
        trajectory=follow(records, TrajectoryParams()),
        study="test" if records else "nothing",
        settings=SETTINGS,
        now=1_760_000_000.0,
        finished_at=lambda _: FINISHED_AT,
        bundle=bundle,
        commit="c0ffee",
    )


def small(setting: str = "m=5") -> MemberRecord:
    return member("deep", STEPS, TASKS, setting=setting)


def runs_of(store: Store, kind: str = "checkpoints", view: int = ViewType.ACTIVE_ONLY) -> list[Run]:
    client = MlflowClient(store.uri)
    experiment = client.get_experiment_by_name(f"test/{kind}")
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id], run_view_type=view, max_results=1000))


def shown(store: Store) -> list[object]:
    """What a store shows, without ids and times."""
    client = MlflowClient(store.uri)
    seen = []
    for kind in ("checkpoints", "trajectories"):
        for run in runs_of(store, kind):
            tags = {k: v for k, v in run.data.tags.items() if k != "publisher"}
            history = {n: [(p.step, p.value, p.timestamp) for p in client.get_metric_history(run.info.run_id, n)]
                       for n in ("tokens", "behaviour/held_out/metric")}  # fmt: skip
            root = Path(run.info.artifact_uri.removeprefix("file://"))
            files = {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}
            inputs = [(i.dataset.name, i.dataset.digest) for i in run.inputs.dataset_inputs]
            facts = (run.info.status, run.info.start_time, run.info.end_time)
            seen.append((facts, tags, run.data.params, run.data.metrics, history, files, inputs))
    return sorted(seen, key=lambda item: item[1]["fingerprint"])


@pytest.fixture(scope="session")
def blank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with tables and nothing in them: making the tables takes seconds."""
    store = open_store(tmp_path_factory.mktemp("blank"))
    assert publish(projection(), store).complete
    assert store.database is not None
    return store.database


@pytest.fixture
def store(tmp_path: Path, blank: Path) -> Store:
    """A store of its own for a test."""
    return fresh(tmp_path, blank)


def fresh(folder: Path, blank: Path) -> Store:
    store = open_store(folder)
    assert store.database is not None
    store.database.parent.mkdir(parents=True)
    with closing(sqlite3.connect(blank)) as source, closing(sqlite3.connect(store.database)) as target:
        source.backup(target)
    return store


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """One published study, with pictures; tests only read it."""
    record = small()
    keys = {job: key for key, job in record.fingerprints.items()}
    by_step = {a.ref.step: a for a in record.analyses}
    store = open_store(tmp_path_factory.mktemp("published"))
    report = publish(projection(record, bundle=lambda job: draw_bundle(by_step[keys[job][0]], keys[job][1])), store)
    assert report.complete
    return store


def test_one_finished_run_a_checkpoint_and_task_with_all_that_is_known(published: Store) -> None:
    runs = runs_of(published)
    assert len(runs) == len(STEPS) * len(TASKS)
    assert {run.info.status for run in runs} == {"FINISHED"}
    (run,) = [r for r in runs if r.data.tags["step"] == "1722" and r.data.tags["task"] == "ioi"]
    analysis = small().analyses[-1]
    result = analysis.tasks["ioi"]
    named = measures(result, analysis.model.graph) | mechanism_measures(analysis, "ioi")
    assert {"role/name_mover/best", "algorithm/direct_null_p95", "stability/core"} < set(named)
    for name, measure in named.items():
        if measure.value == measure.value:
            assert run.data.metrics[name] == pytest.approx(measure.value)
        else:
            assert name not in run.data.metrics
    interval = result.behaviour["held_out"].metric
    assert run.data.metrics["behaviour/held_out/metric_low"] == pytest.approx(interval.low)
    tags = run.data.tags
    assert (tags["member"], tags["scale"], tags["seed"], tags["suite"]) == ("deep-s0", "deep", "0", "ladder")
    assert (tags["status"], tags["current"], tags["git_commit"]) == ("found", "true", "c0ffee")
    assert tags["job"] == small().fingerprints[1722, "ioi"]
    assert tags["weights"] == analysis.ref.weights_digest
    assert "smallest faithful circuit keeps" in tags["mlflow.note.content"]
    assert run.data.params["analyse.attribution.steps"] == "5"
    assert run.data.params["model.layers"] == "6"
    assert not any(name.startswith("other") for name in run.data.params)
    (used,) = run.inputs.dataset_inputs
    assert (used.dataset.name, used.dataset.digest) == ("ioi", result.dataset_digest)
    assert run.info.start_time == run.info.end_time == FINISHED_AT * 1000


def test_the_curve_has_the_number_of_edges_as_its_step(published: Store) -> None:
    (run,) = [r for r in runs_of(published) if r.data.tags["step"] == "1722" and r.data.tags["task"] == "ioi"]
    curve = small().analyses[-1].tasks["ioi"].circuit.curve
    history = MlflowClient(published.uri).get_metric_history(run.info.run_id, "curve/raw")
    assert sorted((p.step, p.value) for p in history) == [(p.asked, p.faithfulness.raw) for p in curve]


def test_a_run_has_its_circuit_as_files(published: Store) -> None:
    runs = {(r.data.tags["step"], r.data.tags["task"]): r for r in runs_of(published)}
    root = Path(runs["1722", "ioi"].info.artifact_uri.removeprefix("file://"))
    names = {str(p.relative_to(root)) for p in root.rglob("*") if p.is_file()}
    assert {"circuit/edges.csv", "circuit/circuit.png", "circuit/circuit.svg", "circuit/circuit.html"} < names
    assert {"faithfulness/curve.csv", "faithfulness/faithfulness.svg"} < names
    circuit = small().analyses[-1].tasks["ioi"].circuit.circuit
    assert circuit is not None
    lines = (root / "circuit/edges.csv").read_text().splitlines()
    assert sorted(line.split(",")[0] for line in lines[1:]) == sorted(circuit.edge_names)
    strengths = [abs(float(line.split(",")[-1])) for line in lines[1:]]
    assert strengths == sorted(strengths, reverse=True)
    unlearnt = runs["0", "sva"]
    assert unlearnt.data.tags["status"] == "not_learned"
    assert [p.name for p in Path(unlearnt.info.artifact_uri.removeprefix("file://")).glob("*")] == ["roles"]


def test_a_run_says_what_the_heads_do(published: Store) -> None:
    runs = {(r.data.tags["step"], r.data.tags["task"]): r for r in runs_of(published)}
    run, analysis = runs["1722", "ioi"], small().analyses[-1]
    for role, scores in analysis.roles.items():
        head = leading_head(scores)
        assert head is not None
        assert run.data.tags[f"head.{role}"] == f"a{head[0]}.h{head[1]}"
        assert run.data.metrics[f"role/{role}/best"] == pytest.approx(float(scores.score.nan_to_num(-1).max()))
    root = Path(run.info.artifact_uri.removeprefix("file://"))
    table = pd.read_csv(root / "roles/heads.csv")
    expected = role_table([small()]).query("step == 1722")
    assert table["head"].tolist() == expected["head"].tolist()
    assert table["score"].tolist() == pytest.approx(expected["score"].tolist(), nan_ok=True)
    assert table["holds"].astype(bool).tolist() == expected["holds"].tolist()
    assert table["score"].isna().sum() == 1, "what was not measured is an empty cell"
    assert (root / "roles/roles.png").read_bytes().startswith(b"\x89PNG")
    assert (root / "algorithm/circuit.png").read_bytes().startswith(b"\x89PNG")
    assert analysis.algorithm is not None
    metrics = pd.read_csv(root / "algorithm/metrics.csv").set_index("metric")
    assert metrics.loc["direct", "value"] == pytest.approx(analysis.algorithm.metrics["direct"].value)
    assert len(pd.read_csv(root / "algorithm/effects.csv")) == 3 * 24
    note = run.data.tags["mlflow.note.content"]
    assert "Heads with a role: induction a5.h2" in note
    assert "The algorithm: direct 7" in note
    early = Path(runs["0", "ioi"].info.artifact_uri.removeprefix("file://"))
    assert not (early / "algorithm/effects.csv").exists()
    assert "The algorithm: IOI is not learnt here." in runs["0", "ioi"].data.tags["mlflow.note.content"]


def test_trajectory_runs_have_the_training_step_as_step(published: Store) -> None:
    runs = runs_of(published, "trajectories")
    assert {(r.data.tags["member"], r.data.tags["task"]) for r in runs} == {("deep-s0", t) for t in TASKS}
    client = MlflowClient(published.uri)
    (run,) = [r for r in runs if r.data.tags["task"] == "ioi"]
    for name, expected in {
        "tokens": [a.ref.tokens for a in small().analyses],
        "behaviour/held_out/metric": [a.tasks["ioi"].behaviour["held_out"].metric.value for a in small().analyses],
    }.items():
        points = sorted(client.get_metric_history(run.info.run_id, name), key=lambda p: p.step)
        assert [p.step for p in points] == list(STEPS)
        assert [p.value for p in points] == pytest.approx(expected)
        assert {p.timestamp for p in points} == {int(FINISHED_AT * 1000)}
    assert {"similarity/edges_weighted/previous", "role/induction/leaving", "algorithm/queries"} < set(run.data.metrics)
    assert run.data.tags["onset"] in ("found", "never", "before the first checkpoint")
    assert run.data.params["trajectory.sustain"] == "2"


def test_experiments_explain_themselves(published: Store) -> None:
    client = MlflowClient(published.uri)
    for kind, word in (("checkpoints", "one training checkpoint"), ("trajectories", "through the training")):
        experiment = client.get_experiment_by_name(f"test/{kind}")
        assert experiment is not None
        assert word in experiment.tags["mlflow.note.content"]


def test_each_task_has_a_saved_view_that_the_ui_can_read(published: Store) -> None:
    """The UI keeps a view as deflated JSON in a tag of the experiment."""
    client = MlflowClient(published.uri)
    for kind, key in (("checkpoints", "selectedColumns"), ("trajectories", "compareRunCharts")):
        experiment = client.get_experiment_by_name(f"test/{kind}")
        assert experiment is not None
        assert len([tag for tag in experiment.tags if tag.startswith("mlflow.sharedViewState.")]) == len(TASKS)
        view = json.loads(experiment.tags["mlflow.sharedViewState.ontogeny-ioi"])
        word, _, packed = view["state"].partition(";")
        state = json.loads(zlib.decompress(base64.b64decode(packed)))
        assert word == "deflate"
        shown = {chart if isinstance(chart, str) else f"metrics.`{chart['metricKey']}`" for chart in state[key]}
        metrics = {f"metrics.`{name}`" for run in runs_of(published, kind) for name in run.data.metrics}
        assert "metrics.`behaviour/held_out/metric`" in shown
        assert {name for name in shown if name.startswith("metrics.")} <= metrics
        found = client.search_runs([experiment.experiment_id], state["searchFilter"])
        assert {run.data.tags["task"] for run in found} == {"ioi"}
        note = experiment.tags["mlflow.note.content"]
        assert f"#/experiments/{experiment.experiment_id}/runs?viewStateShareKey=ontogeny-ioi" in note
    addresses = view_addresses(published, "http://here:1/")
    assert len(addresses) == 2 * len(TASKS)
    assert addresses["test/trajectories, ioi"].startswith("http://here:1/#/experiments/")


def test_runs_of_a_scale_have_its_colour(published: Store) -> None:
    assert {run.data.tags["mlflow.runColor"] for run in runs_of(published)} == {"#2a788e"}


def test_publishing_again_adds_nothing(store: Store) -> None:
    first = publish(projection(small()), store)
    assert (first.added, first.kept, first.unpublished, first.complete) == (8, 0, 0, True)
    before = shown(store)
    again = publish(projection(small()), store)
    assert (again.added, again.kept, again.removed, again.retired) == (0, 8, 0, 0)
    assert shown(store) == before
    assert len(runs_of(store, view=ViewType.ALL)) == 6


def test_other_settings_retire_runs_and_going_back_brings_them_back(store: Store) -> None:
    publish(projection(small("m=5")), store)
    other = publish(projection(small("m=30")), store)
    assert (other.added, other.retired) == (6, 6), "the numbers are the same, so the trajectories are too"
    tags = Counter((r.data.tags["job"] in small("m=5").fingerprints.values(), r.data.tags["current"])
                   for r in runs_of(store))  # fmt: skip
    assert tags == {(True, "false"): 6, (False, "true"): 6}
    back = publish(projection(small("m=5")), store)
    assert (back.added, back.retired) == (0, 6)
    current = [r for r in runs_of(store) if r.data.tags["current"] == "true"]
    assert {r.data.tags["job"] for r in current} == set(small("m=5").fingerprints.values())


def test_new_checkpoints_add_runs_and_replace_the_trajectory(store: Store) -> None:
    short = member("deep", STEPS[:2], TASKS)
    publish(projection(short), store)
    report = publish(projection(small()), store)
    assert (report.added, report.kept, report.retired) == (2 + 2, 4, 2)
    current = [r for r in runs_of(store, "trajectories") if r.data.tags["current"] == "true"]
    assert sorted(r.data.tags["task"] for r in current) == ["ioi", "sva"]


def test_two_checkpoints_with_the_same_weights_are_two_runs(store: Store) -> None:
    """Their jobs may share a fingerprint; a run stands for a step."""
    record = member("deep", (0, 1), ("ioi",))
    same = replace(record, fingerprints=dict.fromkeys(record.fingerprints, "f" * 32))
    assert publish(projection(same), store).added == 3
    runs = {r.data.tags["step"]: r.data.tags for r in runs_of(store)}
    assert runs["1"]["duplicate_of"] == "0"
    assert "duplicate_of" not in runs["0"]
    assert publish(projection(same), store).added == 0


def test_doubles_are_swept_and_the_smallest_id_stays(store: Store) -> None:
    """Two machines may have published to one server at the same time."""
    publish(projection(small()), store)
    client = MlflowClient(store.uri)
    original = runs_of(store)[0]
    double = client.create_run(original.info.experiment_id, tags=original.data.tags)
    client.set_terminated(double.info.run_id, "FINISHED")
    report = publish(projection(small()), store)
    assert (report.added, report.removed) == (0, 1)
    left = [r.info.run_id for r in runs_of(store) if r.data.tags["fingerprint"] == original.data.tags["fingerprint"]]
    assert left == [min(original.info.run_id, double.info.run_id)]


def test_runs_of_others_in_our_experiments_are_left_alone(store: Store) -> None:
    publish(projection(small()), store)
    client = MlflowClient(store.uri)
    experiment = client.get_experiment_by_name("test/checkpoints")
    assert experiment is not None
    mine = client.create_run(experiment.experiment_id, run_name="by hand").info.run_id
    assert publish(projection(small()), store).removed == 0
    assert client.get_run(mine).info.status == "RUNNING"


def test_an_experiment_deleted_in_the_ui_comes_back(store: Store) -> None:
    publish(projection(small()), store)
    client = MlflowClient(store.uri)
    experiment = client.get_experiment_by_name("test/checkpoints")
    assert experiment is not None
    client.delete_experiment(experiment.experiment_id)
    assert publish(projection(small()), store).complete
    assert len(runs_of(store)) == 6


_PROGRAM = """
import sys, time
from pathlib import Path
from ontogeny.tracking import open_store, publish
from ontogeny.tracking import publishing
from test_publishing import projection, small
inner, written = publishing.log_numbers, 0
def slow(*arguments):
    global written
    inner(*arguments)
    written += 1
    print(written, flush=True)
    if written == 4:
        time.sleep(60)
publishing.log_numbers = slow
publish(projection(small()), open_store(Path(sys.argv[1])))
"""


def test_killed_in_the_middle_then_published_is_as_if_undisturbed(tmp_path: Path, blank: Path) -> None:
    killed, calm = fresh(tmp_path / "killed", blank), fresh(tmp_path / "calm", blank)
    paths = f"{Path(__file__).parents[2]}:{Path(__file__).parent}"
    process = subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, str(tmp_path / "killed")], stdout=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONPATH": paths},
    )  # fmt: skip
    assert process.stdout is not None
    assert [process.stdout.readline().strip() for _ in range(4)] == ["1", "2", "3", "4"]
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert Counter(r.info.status for r in runs_of(killed)) == {"FINISHED": 3, "RUNNING": 1}

    report = publish(projection(small()), killed)
    assert (report.added, report.kept, report.removed) == (5, 3, 1)
    assert set(Counter(r.data.tags["fingerprint"] for r in runs_of(killed)).values()) == {1}
    publish(projection(small()), calm)
    assert shown(killed) == shown(calm)


def test_a_second_publisher_waits_for_the_first(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    with ThreadPoolExecutor(2) as pool:
        with store.exclusive():
            second = pool.submit(publish, projection(small()), store)
            time.sleep(1.0)
            assert not second.done()
            assert "Waiting for another publisher" in caplog.text
        assert second.result(timeout=60).added == 8

"""The whole path from a suite on a hub to MLflow: two sizes of Pythia with random weights, three schedules.

The tests build on each other, in the order of this file.
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from ontogeny.records import read_json, read_member
from support.clone import Clone, clone_project
from support.hub import Hub, serving
from support.hub_models import publish, pythia_tokenizer

STEPS = {"EleutherAI/pythia-14m": (0, 1, 512, 1000, 143_000), "EleutherAI/pythia-70m": (0, 1, 1000)}
TASKS = ("ioi", "gendered_pronoun", "greater_than", "sva")


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    root = tmp_path_factory.mktemp("hub")
    with serving() as hub:
        for name, steps in STEPS.items():
            publish(hub, name, root, name.rpartition("-")[2], steps, pythia_tokenizer())
        small = hub.repository("EleutherAI/pythia-14m")
        small.branches["step1"] = small.branches["step0"]
        shutil.copyfile(root / "EleutherAI/pythia-14m/step512/model.safetensors", root / "again.safetensors")
        yield hub


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, hub: Hub) -> tuple[Clone, dict[str, str]]:
    """A clone of the project, its params, and the environment in which it finds the hub."""
    clone = clone_project(tmp_path_factory.mktemp("study") / "project")
    params = yaml.safe_load((clone.root / "params" / "pythia-160m-ioi.yaml").read_text())
    tiny = yaml.safe_load((clone.root / "params" / "tiny.yaml").read_text())
    (clone.root / "text.txt").write_text("John and Mary went to the store, and Mary gave a drink to John again.\n" * 60)
    params["suite"]["members"] = ["14m-s0", "70m-s0"]
    params["corpus"] = {"tokenizer": "EleutherAI/pythia-14m", "text": "text.txt"}
    params["datasets"] = tiny["datasets"] | {
        "sizes": {"ioi": 10, "gendered_pronoun": 10, "greater_than": 10, "sva": 10}
    }
    params["checkpoints"]["coverage"] = {"behaviour": "all", "circuits": [0, 143_000], "algorithm": "none"}
    params["checkpoints"]["members"] = {"70m-s0": {"behaviour": "log", "circuits": "none", "algorithm": "none"}}
    params["analyse"]["behaviour"]["resamples"] = 100
    params["analyse"]["stability"]["resamples"] = 4
    params["figures"] = {"formats": ["png"], "dpi": 50}
    params["execution"] |= {"n_jobs": 1, "disk_gb": 0.06}
    params["tracking"]["study"] = "hub-study"
    (clone.root / "params" / "hub-study.yaml").write_text(yaml.safe_dump(params))
    return clone, hub.environment(tmp_path_factory.mktemp("home"))


def test_a_suite_on_the_hub_is_studied(study: tuple[Clone, dict[str, str]], hub: Hub) -> None:
    clone, environment = study
    done = clone.run("ontogeny", "study", "hub-study", **environment)
    assert done.returncode == 0, done.stderr[-3000:]
    data = clone.root / ".cache" / "studies" / "hub-study" / "data"
    for member, name in (("14m-s0", "EleutherAI/pythia-14m"), ("70m-s0", "EleutherAI/pythia-70m")):
        record = read_member(data / "analyses" / member)
        assert [a.ref.step for a in record.analyses] == list(STEPS[name])
        assert all(tuple(a.tasks) == TASKS for a in record.analyses)
        assert [a.ref.commit for a in record.analyses] == [
            hub.repository(name).branches[f"step{s}"] for s in STEPS[name]
        ]
        refs = read_json(data / "checkpoints" / member / "refs.json")["refs"]
        assert all(len(ref["commit"]) == 40 for ref in refs)
        assert not (data / "checkpoints" / member / "step0").exists()
    small = {a.ref.step: a for a in read_member(data / "analyses" / "14m-s0").analyses}
    statuses = {step: {t.circuit.status for t in a.tasks.values()} for step, a in small.items()}
    assert statuses[512] == statuses[1000] == {"not_measured"}
    assert "not_measured" not in statuses[0] | statuses[143_000]


def test_checkpoints_were_fetched_once_each_and_made_room(study: tuple[Clone, dict[str, str]], hub: Hub) -> None:
    _, environment = study
    assert len(hub.downloads("14m")) == len(set(STEPS["EleutherAI/pythia-14m"])) - 1  # step1 is step0
    assert len(hub.downloads("70m")) == len(STEPS["EleutherAI/pythia-70m"])
    blobs = [p for p in Path(environment["HF_HOME"]).rglob("blobs/*") if p.stat().st_size > 10_000_000]
    assert len(blobs) == 1  # The budget is smaller than one of 70m: the last one is all that is left.


def test_mlflow_has_them_all(study: tuple[Clone, dict[str, str]]) -> None:
    from mlflow import MlflowClient

    clone, _ = study
    client = MlflowClient(tracking_uri=f"sqlite:///{clone.root / 'mlruns' / 'mlflow.db'}")
    (experiment,) = [e for e in client.search_experiments() if e.name == "hub-study/checkpoints"]
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    assert len(runs) == len(TASKS) * sum(map(len, STEPS.values()))
    assert {run.data.tags["suite"] for run in runs} == {"pythia"}
    again = [run for run in runs if run.data.tags.get("duplicate_of")]
    assert {run.data.tags["step"] for run in again} == {"1"}
    assert {run.data.tags["tokens"] for run in runs if run.data.tags["step"] == "143000"} == {str(143_000 * 2_097_152)}


def test_offline_it_is_all_there(study: tuple[Clone, dict[str, str]], hub: Hub) -> None:
    clone, environment = study
    asked = len(hub.asked)
    done = clone.run("ontogeny", "study", "hub-study", **environment, HF_HUB_OFFLINE="1")
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(hub.asked) == asked
    assert json.loads((clone.root / ".cache/studies/hub-study/data/failures/checkpoints.json").read_text()) == []

"""The whole path from a suite on a hub to MLflow: two sizes of Pythia with random weights, three schedules.

The tests build on each other, in the order of this file.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from ontogeny.records import read_json, read_member
from support.clone import Clone, clone_project
from support.hub import Hub, serving
from support.hub_models import publish, pythia_tokenizer

STEPS = {"EleutherAI/pythia-14m": (0, 1, 512, 143_000), "EleutherAI/pythia-70m": (0, 1000)}
TASKS = ("ioi", "greater_than")


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    root = tmp_path_factory.mktemp("hub")
    with serving() as hub:
        for name, steps in STEPS.items():
            publish(hub, name, root, name.rpartition("-")[2], steps, pythia_tokenizer())
        small = hub.repository("EleutherAI/pythia-14m")
        small.branches["step1"] = small.branches["step0"]
        yield hub


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, hub: Hub) -> tuple[Clone, dict[str, str]]:
    """A clone of the project, its params, and the environment in which it finds the hub."""
    clone = clone_project(tmp_path_factory.mktemp("study") / "project")
    params = yaml.safe_load((clone.root / "params" / "pythia-160m-ioi.yaml").read_text())
    (clone.root / "text.txt").write_text("John and Mary went to the store, and Mary gave a drink to John again.\n" * 60)
    params["suite"]["members"] = ["14m-s0", "70m-s0"]
    params["corpus"] = {"tokenizer": "EleutherAI/pythia-14m", "text": "text.txt"}
    params["datasets"] |= {"tasks": list(TASKS), "sizes": dict.fromkeys(TASKS, 10)}
    params["checkpoints"]["coverage"] = {"behaviour": "all", "circuits": [0, 143_000], "algorithm": "none"}
    params["checkpoints"]["members"] = {"70m-s0": {"behaviour": "log", "circuits": "none", "algorithm": "none"}}
    params["analyse"]["behaviour"]["resamples"] = 100
    params["analyse"]["stability"]["resamples"] = 4
    params["figures"] = {"formats": ["png"], "dpi": 50}
    params["execution"] |= {"n_jobs": 1, "disk_gb": 0.06}
    params["tracking"]["study"] = "hub-study"
    (clone.root / "params" / "hub-study.yaml").write_text(yaml.safe_dump(params))
    return clone, hub.environment(tmp_path_factory.mktemp("home"))


def test_the_plan_of_the_suite_downloads_no_weights(study: tuple[Clone, dict[str, str]], hub: Hub) -> None:
    """Its shapes are Pythia's: edges of METHODS 3.2."""
    clone, environment = study
    done = clone.run("ontogeny", "plan", "hub-study", **environment)
    assert done.returncode == 0, done.stderr[-3000:]
    lines = {line.split()[0]: line.split() for line in done.stdout.splitlines() if line.split()}
    assert lines["14m-s0"][1] == "4"
    assert lines["14m-s0"][4:6] == ["14,067,712", "1,084"]
    assert lines["70m-s0"][4:6] == ["70,426,624", "3,580"]
    assert "peak disk" in done.stdout
    assert "analyses" in done.stdout
    assert hub.downloads("pythia-14m") == hub.downloads("pythia-70m") == []
    assert not (clone.root / ".cache" / "studies").exists()


def test_a_suite_on_the_hub_is_studied(study: tuple[Clone, dict[str, str]], hub: Hub) -> None:
    clone, environment = study
    done = clone.run("ontogeny", "study", "hub-study", **environment)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "14m-s0" in done.stdout[done.stdout.index("Checkpoints that are not what they should be") :]
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
    assert statuses[512] == {"not_measured"}
    assert "not_measured" not in statuses[0] | statuses[143_000]


def test_checkpoints_were_fetched_and_made_room(study: tuple[Clone, dict[str, str]], hub: Hub) -> None:
    """One that is needed again by a later stage may come twice: the budget holds hardly one of the larger model."""
    _, environment = study
    for name, count in (("14m", 3), ("70m", 2)):  # step1 of 14m is step0
        paths = [asked.path for asked in hub.downloads(name)]
        assert len(set(paths)) == count
        assert len(paths) <= count + 1
    blobs = [path.stat().st_size for path in Path(environment["HF_HOME"]).rglob("blobs/*")]
    assert 25e6 < sum(blobs) < 0.06e9 + max(blobs) + 3e6


def test_mlflow_has_them_all(study: tuple[Clone, dict[str, str]]) -> None:
    from mlflow import MlflowClient

    clone, _ = study
    client = MlflowClient(tracking_uri=f"sqlite:///{clone.root / 'mlruns' / 'mlflow.db'}")
    (experiment,) = [e for e in client.search_experiments() if e.name == "hub-study/checkpoints"]
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    assert len(runs) == len(TASKS) * sum(map(len, STEPS.values()))
    assert {run.data.tags["suite"] for run in runs} == {"pythia"}
    again = [run for run in runs if run.data.tags.get("duplicate_of")]
    assert {(run.data.tags["step"], run.data.tags["audit"]) for run in again} == {("1", "untrained")}
    assert {run.data.tags["tokens"] for run in runs if run.data.tags["step"] == "143000"} == {str(143_000 * 2_097_152)}


def test_offline_it_is_all_there(study: tuple[Clone, dict[str, str]], hub: Hub) -> None:
    clone, environment = study
    asked = len(hub.asked)
    done = clone.run("ontogeny", "study", "hub-study", **environment, HF_HUB_OFFLINE="1")
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(hub.asked) == asked


def test_strictly_the_untrained_step_1_is_an_error(study: tuple[Clone, dict[str, str]]) -> None:
    clone, environment = study
    done = clone.run("ontogeny", "audit", "hub-study", **environment)
    assert done.returncode == 0
    assert "untrained" in done.stdout
    assert clone.run("ontogeny", "audit", "hub-study", "--strict", **environment).returncode == 4

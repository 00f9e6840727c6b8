"""The whole path on the `tiny` profile: from nothing, again, after failures, in other clones, as experiments.

The tests build on each other, in the order of this file.
"""

import csv
import json
import re
import shutil
import time
from pathlib import Path

import yaml

from ontogeny.records import read_json, read_member
from ontogeny.records.tuning import read_tuning
from support.clone import Clone, lock

TASKS = ("ioi", "gendered_pronoun", "greater_than", "sva")
MEMBERS = ("nano-s0", "micro-s0")
STAGES = (
    *(f"datasets@{task}" for task in TASKS),
    *(f"analyse@{member}" for member in MEMBERS),
    *(f"transfer@{member}" for member in MEMBERS),
    *(f"tune@{task}" for task in TASKS),
)
FAILED = "data/failures/analyse-micro-s0.json"


def git(clone: Clone, *arguments: str) -> None:
    """Run git in the clone as somebody."""
    done = clone.run("git", "-c", "user.name=test", "-c", "user.email=test@localhost", *arguments)
    assert done.returncode == 0, done.stderr


def fingerprints(clone: Clone) -> list[str]:
    """Of the finished runs in MLflow, all experiments of the study."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{clone.root / 'mlruns' / 'mlflow.db'}")
    experiments = [e.experiment_id for e in client.search_experiments() if e.name.startswith("tiny/")]
    runs = client.search_runs(experiments, max_results=10_000)
    assert {run.info.status for run in runs} == {"FINISHED"}
    return [run.data.tags["fingerprint"] for run in runs]


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_study_from_nothing(clone: Clone) -> None:
    before = {name: (clone.root / name).read_bytes() for name in ("params.yaml", "dvc.yaml", "data/.gitignore")}
    done = clone.run("ontogeny", "study", "tiny")
    assert done.returncode == 0, done.stderr
    assert set(lock(clone.profile)) == {"corpus", *STAGES, "checkpoints", "trajectory", "figures"}
    for member in MEMBERS:
        record = read_member(clone.profile / "data" / "analyses" / member)
        steps = [analysis.ref.step for analysis in record.analyses]
        assert steps == sorted(steps)
        assert len(steps) >= 4
        assert all(tuple(analysis.tasks) == TASKS for analysis in record.analyses)
        assert not record.failures
        assert member in done.stdout
    for task in TASKS:
        assert task in done.stdout
    assert (clone.profile / "data" / "figures" / "behaviour.png").stat().st_size > 5000
    assert {name: (clone.root / name).read_bytes() for name in before} == before
    assert not (clone.root / "dvc.lock").exists()
    assert [path.name for path in (clone.root / "data").iterdir()] == [".gitignore"]
    assert clone.run("git", "status", "--porcelain").stdout == ""


def test_mlflow_has_one_run_for_each_checkpoint_and_task(clone: Clone) -> None:
    found = fingerprints(clone)
    checkpoints = sum(len(list((clone.profile / "data/checkpoints" / m).glob("step*"))) for m in MEMBERS)
    tried = sum(1 + len(read_tuning(clone.profile / "data" / "studies" / task).trials) for task in TASKS)
    verdicts = 1
    assert len(found) == len(set(found)) == len(TASKS) * (checkpoints + len(MEMBERS)) + tried + verdicts


def test_a_second_repro_runs_nothing(clone: Clone) -> None:
    started = time.monotonic()
    done = clone.run("dvc", "repro", at=clone.profile)
    assert time.monotonic() - started < 20
    assert "Data and pipelines are up to date." in done.stdout
    assert "Running stage" not in done.stdout


def test_a_report_says_that_it_can_be_had_again(clone: Clone) -> None:
    """Its digests are those of dvc.lock, and every picture that it shows is there."""
    kept = clone.root / "mlruns" / "report"
    done = clone.run("ontogeny", "report", str(kept), "--profile", "tiny", "--member", "micro-s0")
    assert done.returncode == 0, done.stderr
    text = (kept / "report.md").read_text(encoding="utf-8")
    assert "all are up to date with these" in text
    assert (kept / "dvc.lock").read_bytes() == (clone.profile / "dvc.lock").read_bytes()
    shown = re.findall(r"\]\((figures/[^)]*)\)", text)
    assert {"figures/behaviour.png", "figures/claims.png", "figures/role_map/micro-s0.png"} <= set(shown)
    assert all((kept / name).stat().st_size > 5000 for name in shown)
    assert clone.run("git", "status", "--porcelain").stdout == ""
    shutil.rmtree(kept)


def test_a_server_that_is_gone_costs_nothing_but_the_exit_code(clone: Clone) -> None:
    before = sorted(fingerprints(clone))
    done = clone.run("ontogeny", "study", "tiny", MLFLOW_TRACKING_URI="http://127.0.0.1:9")
    assert done.returncode == 3
    assert "Running stage" not in done.stdout
    assert "`ontogeny publish` adds it later" in done.stderr
    again = clone.run("ontogeny", "publish", "tiny")
    assert again.returncode == 0
    assert f": 0 runs added, {len(before)} were there" in again.stderr
    assert sorted(fingerprints(clone)) == before


def test_dvc_says_something_useful(clone: Clone) -> None:
    metrics = clone.run("dvc", "metrics", "show", "--json", at=clone.profile).stdout
    for member in MEMBERS:
        for task in TASKS:
            assert f"data/metrics/{member}/{task}.json" in metrics
    assert '"accuracy"' in metrics
    dag = clone.run("dvc", "dag", "--dot", at=clone.profile).stdout
    assert re.search(r'"checkpoints" -> "analyse@micro-s0"', dag)
    assert re.search(r'"analyse@nano-s0" -> "trajectory"', dag)
    plots = clone.run("dvc", "plots", "show", "--json", at=clone.profile).stdout
    assert "behaviour" in plots


def test_the_same_settings_in_the_projects_own_study_compute_nothing_anew(clone: Clone) -> None:
    """params.yaml instead of a profile: other folders, the same caches, the same bytes and runs."""
    shutil.copy(clone.root / "params" / "tiny.yaml", clone.root / "params.yaml")
    published = sorted(fingerprints(clone))
    known = {path: path.stat().st_mtime_ns for kind in ("training", "jobs") for path in cached(clone, kind)}
    done = clone.run("ontogeny", "study")
    assert done.returncode == 0, done.stderr
    assert {path: path.stat().st_mtime_ns for kind in ("training", "jobs") for path in cached(clone, kind)} == known
    assert lock(clone.root) == lock(clone.profile)
    for name in ("analyses", "transfer", "studies", "trajectories", "figures"):
        assert files(clone.root / "data" / name) == files(clone.profile / "data" / name)
    assert sorted(fingerprints(clone)) == published


def cached(clone: Clone, kind: str) -> list[Path]:
    """Files of finished work of a kind."""
    return [path for path in (clone.root / ".cache" / kind).rglob("*") if path.is_file()]


def test_a_damaged_checkpoint_fails_alone_and_is_done_again(clone: Clone) -> None:
    """One file is cut short: its job fails by name, the others finish; when it is mended only that job is done."""
    undisturbed = lock(clone.profile)
    damaged = clone.profile / "data" / "checkpoints" / "micro-s0" / "step4" / "model.safetensors"
    whole, jobs = damaged.read_bytes(), clone.root / ".cache" / "jobs"
    shutil.rmtree(jobs)
    damaged.write_bytes(whole[: len(whole) // 2])
    done = clone.run("ontogeny", "stage", "analyse", "micro-s0", at=clone.profile)
    assert done.returncode == 0, done.stderr
    (failure,) = read_json(clone.profile / FAILED)
    assert (failure["member"], failure["step"]) == ("micro-s0", 4)
    assert "step4/model.safetensors is cut short" in failure["reason"]
    record = read_member(clone.profile / "data" / "analyses" / "micro-s0")
    assert 4 not in [analysis.ref.step for analysis in record.analyses]
    assert len(record.analyses) >= 3
    shown = clone.run("ontogeny", "summary", "tiny")
    assert shown.returncode == 3
    assert "micro-s0 step 4" in shown.stdout

    damaged.write_bytes(whole)
    first = {path: path.stat().st_mtime_ns for path in jobs.rglob("*.safetensors")}
    again = clone.run("dvc", "repro", "analyse@micro-s0", at=clone.profile)
    assert "5 checkpoints, 1 analysed now, 0 failed" in again.stderr.replace(f"{len(record.analyses) + 1} ch", "5 ch")
    assert {path: path.stat().st_mtime_ns for path in first} == first
    assert read_json(clone.profile / FAILED) == []
    assert lock(clone.profile) == undisturbed


def test_a_second_clone_pulls_the_results_and_computes_nothing(clone: Clone, tmp_path: Path) -> None:
    """The remote is a folder. The second clone has no job cache: what it shows comes from data/ alone."""
    second = Clone(tmp_path / "second")
    for command in (("remote", "add", "--default", "shared", str(tmp_path / "remote")), ("push",)):
        done = clone.run("dvc", *command)
        assert done.returncode == 0, done.stderr
    git(clone, "add", "params.yaml", "dvc.lock", ".dvc/config")
    git(clone, "commit", "-q", "-m", "A study to share")
    git(clone, "clone", "-q", str(clone.root), str(second.root))
    assert not (second.root / "data" / "checkpoints").exists()
    done = second.run("dvc", "pull")
    assert done.returncode == 0, done.stderr
    assert files(second.root / "data") == files(clone.root / "data")
    done = second.run("dvc", "repro")
    assert "Running stage" not in done.stdout
    assert "Data and pipelines are up to date." in done.stdout
    assert not (second.root / ".cache" / "training").exists()
    assert not (second.root / ".cache" / "jobs").exists()
    done = second.run("ontogeny", "publish")
    assert done.returncode == 0, done.stderr
    assert sorted(fingerprints(second)) == sorted(fingerprints(clone))

    (second.root / FAILED).unlink()
    done = second.run("dvc", "repro", "--dry", f"analyse@{MEMBERS[1]}")
    assert f"Running stage 'analyse@{MEMBERS[1]}'" in done.stdout, "a list that was removed is not pulled back: a retry"


def test_an_analysis_setting_retrains_nothing(clone: Clone) -> None:
    """Another m: corpus, data sets and training stay; `dvc exp show` has the setting and its metrics."""
    trained = {path: path.stat().st_mtime_ns for path in (clone.root / ".cache" / "training").rglob("*")}
    done = clone.run("dvc", "exp", "run", "-S", "analyse.attribution.steps=3", "--name", "three-steps")
    assert done.returncode == 0, done.stderr
    ran = set(re.findall(r"Running stage '(.*)'", done.stdout))
    of_members = {f"{stage}@{member}" for stage in ("analyse", "transfer") for member in MEMBERS}
    assert ran == {*of_members, "trajectory", "figures"}
    assert {path: path.stat().st_mtime_ns for path in trained} == trained
    rows = list(csv.DictReader(clone.run("dvc", "exp", "show", "--csv").stdout.splitlines()))
    (row,) = [row for row in rows if row["Experiment"] == "three-steps"]
    assert row["analyse.attribution.steps"] == "3"
    assert 0 <= float(row["data/metrics/micro-s0/ioi.json:accuracy"]) <= 1


def test_an_experiment_is_laid_beside_the_study_that_it_came_from(clone: Clone) -> None:
    done = clone.run("ontogeny", "compare", "tiny", "three-steps", "--csv", str(clone.root / ".cache" / "both.csv"))
    assert done.returncode == 0, done.stderr
    assert re.search(r"analyse\.attribution\.steps +5 +3", done.stdout)
    rows = list(csv.DictReader((clone.root / ".cache" / "both.csv").read_text().splitlines()))
    assert {(row["member"], row["task"]) for row in rows} == {(member, task) for member in MEMBERS for task in TASKS}
    assert all(row["weights_a"] == row["weights_b"] and row["metric_a"] == row["metric_b"] for row in rows)


def test_dvc_tells_experiments_apart_and_brings_one_back(clone: Clone) -> None:
    """The commands of docs/reproducibility.md, on the experiment of the test before."""

    def dvc(*command: str) -> str:
        done = clone.run("dvc", *command)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert json.loads(dvc("exp", "diff", "HEAD", "three-steps", "--json"))["params"] == {
        "params.yaml": {"analyse.attribution.steps": {"old": 5, "new": 3, "diff": -2}}
    }
    metrics = json.loads(dvc("metrics", "diff", "HEAD", "three-steps", "--all", "--json"))
    accuracy = metrics["data/metrics/micro-s0/ioi.json"]["accuracy"]
    assert accuracy["old"] == accuracy["new"], "another m finds other circuits in the same models"
    plots = json.loads(dvc("plots", "diff", "HEAD", "three-steps", "--json"))["data"]
    assert [image["revisions"] for image in plots["data/figures/behaviour.png"]] == [["HEAD"], ["three-steps"]]

    git(clone, "checkout", "-q", "params.yaml", "dvc.lock")
    dvc("checkout", "-q")
    assert files(clone.root / "data" / "analyses") == files(clone.profile / "data" / "analyses")
    dvc("exp", "apply", "three-steps")
    assert yaml.safe_load((clone.root / "params.yaml").read_text())["analyse"]["attribution"]["steps"] == 3
    assert files(clone.root / "data" / "analyses") != files(clone.profile / "data" / "analyses")
    assert "up to date" in dvc("status")

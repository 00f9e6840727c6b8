"""What an MLflow store shows, as plain values that can be compared: no ids, no times, no machine."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from mlflow.entities import Run

VOLATILE = ("publisher", "git_commit", "mlflow.source.git.commit")
"""Tags that name a machine, a moment or a commit."""


class Shown(NamedTuple):
    """One run."""

    experiment: str
    status: str
    tags: dict[str, str]
    params: dict[str, str]
    metrics: dict[str, float]
    histories: dict[str, list[tuple[int, float]]]
    """Step and value, in the order of steps."""
    inputs: list[tuple[str, str]]
    files: dict[str, str]
    """SHA-256 by path."""


def active_runs(uri: str, study: str) -> list[tuple[str, Run]]:
    """Experiment's name and run, of both experiments of a study."""
    client = MlflowClient(uri)
    known = {e.experiment_id: e.name for e in client.search_experiments() if e.name.startswith(f"{study}/")}
    runs: list[Run] = []
    token = None
    while known:
        page = client.search_runs(list(known), max_results=1000, page_token=token)
        runs += page
        token = page.token
        if not token:
            break
    return [(known[run.info.experiment_id], run) for run in runs]


def finished_fingerprints(uri: str, study: str) -> list[str]:
    """Of all runs, each of which must be FINISHED; sorted, a double twice."""
    runs = [run for _, run in active_runs(uri, study)]
    assert {run.info.status for run in runs} <= {"FINISHED"}
    return sorted(run.data.tags["fingerprint"] for run in runs)


def shown(uri: str, study: str, *, history_of: Callable[[str], bool] = lambda _: True) -> list[Shown]:
    """Everything that a store shows of a study, ordered by fingerprint."""
    client = MlflowClient(uri)
    seen = []
    for experiment, run in active_runs(uri, study):
        histories = {name: _history(client, run, name) for name in run.data.metrics if history_of(name)}
        tags = {name: value for name, value in run.data.tags.items() if name not in VOLATILE}
        inputs = [(item.dataset.name, item.dataset.digest) for item in run.inputs.dataset_inputs]
        seen.append(
            Shown(
                experiment,
                run.info.status,
                tags,
                run.data.params,
                run.data.metrics,
                histories,
                inputs,
                _files(uri, run),
            )
        )
    return sorted(seen, key=lambda item: item.tags["fingerprint"])


def different(a: Sequence[Shown], b: Sequence[Shown]) -> list[str]:
    """What is not the same, by run, part and key; empty if all is."""
    if [item.tags["fingerprint"] for item in a] != [item.tags["fingerprint"] for item in b]:
        return ["fingerprints"]
    return [
        f"{x.tags['mlflow.runName']}: {name}: {difference}"
        for x, y in zip(a, b)
        for name in Shown._fields
        for difference in _differences(getattr(x, name), getattr(y, name))
    ]


def _differences(x: Any, y: Any) -> list[str]:
    if isinstance(x, dict):
        return [f"{key}: {x.get(key)!r} and {y.get(key)!r}" for key in {**x, **y} if x.get(key) != y.get(key)]
    return [] if x == y else [f"{x!r} and {y!r}"]


def _history(client: MlflowClient, run: Run, name: str) -> list[tuple[int, float]]:
    return sorted((point.step, point.value) for point in client.get_metric_history(run.info.run_id, name))


def _files(uri: str, run: Run) -> dict[str, str]:
    if run.info.artifact_uri.startswith("file:"):
        root = Path(run.info.artifact_uri.removeprefix("file://"))
        return _digests(root) if root.exists() else {}
    with TemporaryDirectory() as folder:
        return _digests(Path(download_artifacts(run_id=run.info.run_id, dst_path=folder, tracking_uri=uri)))


def _digests(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }

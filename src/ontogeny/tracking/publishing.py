"""Making the store show a projection: add, mark, clear; the same end whatever was there before.

A run is written while its status is RUNNING and set to FINISHED last, so a publisher that is killed leaves no run that
looks whole. The next one deletes what it left and writes it again.
"""

from __future__ import annotations

import logging
import random
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ontogeny.tracking.content import (
    CURRENT,
    EXPERIMENT_NOTES,
    FINGERPRINT,
    KINDS,
    NOTE,
    PlannedRun,
    Point,
    Projection,
    RunContent,
)
from ontogeny.tracking.store import Store
from ontogeny.tracking.views import saved_views, view_links

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

log = logging.getLogger(__name__)

_PUBLISHER: Final = "publisher"
_DAY_S: Final = 86_400
_PAGE: Final = 1000
_POINTS_A_CALL: Final = 900
_PARAMS_A_CALL: Final = 100
_PARAM_CHARACTERS: Final = 6000
_DIGEST_CHARACTERS: Final = 36
_ATTEMPTS: Final = 20
"""How often a publisher starts because another machine was quicker."""
_PAUSE_S: Final = 1.0
_COLLIDED: Final = ("RESOURCE_ALREADY_EXISTS", "UniqueViolation", "UNIQUE constraint", "Duplicate entry", "Deadlock")
"""What MLflow and its databases say then."""


@dataclass(frozen=True)
class PublishReport:
    """What publishing did."""

    uri: str
    experiments: tuple[str, ...]
    planned: int
    """Runs that the study has."""
    added: int = 0
    kept: int = 0
    """Runs that were there already."""
    retired: int = 0
    """Runs of other settings, marked current=false by this call."""
    removed: int = 0
    """Leftovers of killed publishers and doubles."""
    reason: str = ""
    """Why runs are unpublished; empty if none is."""

    @property
    def unpublished(self) -> int:
        """Runs that the store does not have; `publish` later adds them."""
        return self.planned - self.added - self.kept

    @property
    def complete(self) -> bool:
        """Whether the store shows everything."""
        return not self.reason

    def with_more(self, other: PublishReport) -> PublishReport:
        """Both together."""
        sums = {name: getattr(self, name) + getattr(other, name) for name in ("planned", *vars(Tally()))}
        return PublishReport(self.uri, self.experiments + other.experiments, **sums, reason=self.reason or other.reason)


@dataclass
class Tally:
    """Counted while runs are written, so that a store that goes away half way is reported truly."""

    added: int = 0
    kept: int = 0
    retired: int = 0
    removed: int = 0


@dataclass(frozen=True)
class Shelf:
    """One experiment: its id, and what it holds."""

    experiment: str
    finished: dict[str, list[Run]] = field(default_factory=dict)
    """By fingerprint, oldest first."""


def publish(projection: Projection, store: Store) -> PublishReport:
    """Make `store` show `projection`. A store that cannot be reached, or goes away, is reported and not raised.

    Raises:
        OntogenyError: the store was written by a newer MLflow.
    """
    plan = list(projection.runs())
    names = tuple(f"{projection.study}/{kind}" for kind in KINDS)
    tally = Tally()
    reason = written(store, tally, lambda: _project(projection, store, plan, tally))
    if reason:
        log.warning("Not everything could be published: %s. Nothing is lost; `ontogeny publish` adds it later.", reason)
    return PublishReport(store.uri, names, len(plan), **vars(tally), reason=reason)


def written(store: Store, tally: Tally, write: Callable[[], None]) -> str:
    """Call `write` while no other publisher of this machine writes; why it did not end, empty if it did.

    MLflow looks whether a thing is there and then adds it. So of two machines that publish at once one can be refused
    by the database: it starts over, and then finds what there is.
    """
    reason = store.unreachable() or ""
    left = 0 if reason else _ATTEMPTS
    while left:
        left -= 1
        earlier, tally.kept = tally.added, 0
        try:
            with store.exclusive():
                write()
            left = 0
        except store_errors() as error:
            if left and any(word in str(error) for word in _COLLIDED):
                log.debug("Starting over: %s", error)
                time.sleep(random.uniform(0, _PAUSE_S))
            else:
                reason, left = f"{store.uri}: {str(error).strip().splitlines()[0]}", 0
        tally.kept = max(0, tally.kept - earlier)
    return reason


def _project(projection: Projection, store: Store, plan: Sequence[PlannedRun], tally: Tally) -> None:
    client = store.client()
    shelves = {kind: open_shelf(client, store, _experiment(client, store, projection, kind), tally) for kind in KINDS}
    tally.kept = sum(run.fingerprint in shelves[run.kind].finished for run in plan)
    for run in plan:
        if run.fingerprint not in shelves[run.kind].finished:
            write_run(client, shelves[run.kind].experiment, run.build())
            tally.added += 1
    for kind, shelf in shelves.items():
        mark_current(client, shelf, {run.fingerprint for run in plan if run.kind == kind}, tally)
        if store.database is None and tally.added:
            open_shelf(client, store, shelf.experiment, tally)  # Another machine may have written the same meanwhile.


def store_errors() -> tuple[type[Exception], ...]:
    """What a store raises when it goes away."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    return MlflowException, SQLAlchemyError, OSError


def _experiment(client: MlflowClient, store: Store, projection: Projection, kind: str) -> str:
    name = f"{projection.study}/{kind}"
    return open_experiment(client, store, name, lambda identity: experiment_tags(kind, identity, projection.tasks))


def open_experiment(client: MlflowClient, store: Store, name: str, tags: Callable[[str], Mapping[str, str]]) -> str:
    """Id of the experiment, which is made or brought back if need be, with its description and saved views."""
    found = client.get_experiment_by_name(name)
    identity = client.create_experiment(name, store.artifact_location(name)) if found is None else found.experiment_id
    if found is not None and found.lifecycle_stage == "deleted":
        client.restore_experiment(identity)
    for key, value in tags(str(identity)).items():
        if found is None or found.tags.get(key) != value:
            client.set_experiment_tag(identity, key, value)
    return str(identity)


def open_shelf(client: MlflowClient, store: Store, experiment: str, tally: Tally) -> Shelf:
    """What the experiment holds, after leftovers and doubles were deleted."""
    shelf = Shelf(experiment)
    for run in _all_runs(client, experiment):
        fingerprint = run.data.tags.get(FINGERPRINT)
        if fingerprint is None:
            continue  # Not ours.
        if run.info.status == "FINISHED":
            shelf.finished.setdefault(fingerprint, []).append(run)
        elif _is_left_over(run, store):
            client.delete_run(run.info.run_id)
            tally.removed += 1
    _sweep(client, shelf, tally)
    return shelf


def experiment_tags(kind: str, experiment: str, tasks: Sequence[str]) -> dict[str, str]:
    """Description, saved views, and the word that makes the UI open on runs instead of on traces."""
    note = EXPERIMENT_NOTES[kind].format(links=view_links(kind, experiment, tasks))
    return {NOTE: note, "mlflow.experimentKind": "custom_model_development"} | saved_views(kind, tasks)


def _all_runs(client: MlflowClient, experiment: str) -> Iterable[Run]:
    token = None
    while True:
        page = client.search_runs([experiment], max_results=_PAGE, order_by=["attributes.run_id"], page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _is_left_over(run: Run, store: Store) -> bool:
    """Whether a run that is not finished has no publisher any more.

    We hold the lock of this machine (and of a SQLite file wherever it is used), so one of ours is dead. On a server
    another machine may be writing: its runs are left for a day.
    """
    machine, _, since = run.data.tags.get(_PUBLISHER, "").partition("@")
    if store.database is not None or machine == _machine():
        return True
    return not since.isdigit() or time.time() - int(since) > _DAY_S


def _sweep(client: MlflowClient, shelf: Shelf, tally: Tally) -> None:
    """Keep, for each fingerprint, the finished run with the smallest id."""
    for runs in shelf.finished.values():
        runs.sort(key=lambda run: run.info.run_id)
        for double in runs[1:]:
            client.delete_run(double.info.run_id)
            tally.removed += 1
        del runs[1:]


def mark_current(client: MlflowClient, shelf: Shelf, wanted: set[str], tally: Tally) -> None:
    """Tag `current` of the runs that were there; the new ones have it."""
    for fingerprint, (run,) in shelf.finished.items():
        value = "true" if fingerprint in wanted else "false"
        if run.data.tags.get(CURRENT) != value:
            client.set_tag(run.info.run_id, CURRENT, value)
            tally.retired += value == "false"


def write_run(client: MlflowClient, experiment: str, content: RunContent) -> str:
    """One run, FINISHED at the very end; its id."""
    moment = _milliseconds(content.seconds)
    tags = dict(content.tags) | {_PUBLISHER: f"{_machine()}@{int(time.time())}"}
    run = client.create_run(experiment, start_time=moment, tags=tags, run_name=content.name).info.run_id
    log_numbers(client, run, content)
    if content.dataset is not None:
        client.log_inputs(run, [_dataset(*content.dataset)])
    if content.files:
        log_files(client, run, content)
    client.set_terminated(run, "FINISHED", end_time=moment)
    return str(run)


def log_numbers(client: MlflowClient, run: str, content: RunContent) -> None:
    """Params and metrics."""
    from mlflow.entities import Param

    params = [Param(name, value[:_PARAM_CHARACTERS]) for name, value in content.params.items()]
    batches = list(_chunks(list(content.points), _POINTS_A_CALL)) or [[]]
    for first, batch in enumerate(batches):
        client.log_batch(run, metrics=[_metric(p) for p in batch], params=params[:_PARAMS_A_CALL] if not first else [])
    for more in _chunks(params[_PARAMS_A_CALL:], _PARAMS_A_CALL):
        client.log_batch(run, params=more)


def log_files(client: MlflowClient, run: str, content: RunContent) -> None:
    """Artifacts."""
    with tempfile.TemporaryDirectory(prefix="ontogeny-") as folder:
        for name, data in content.files.items():
            path = Path(folder, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        client.log_artifacts(run, folder)


def _metric(point: Point) -> Any:
    from mlflow.entities import Metric

    return Metric(point.name, float(point.value), _milliseconds(point.seconds), int(point.step))


def _dataset(task: str, digest: str) -> Any:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    source = f'{{"path": "data/tasks/{task}"}}'
    dataset = Dataset(name=task, digest=digest[:_DIGEST_CHARACTERS], source_type="local", source=source)
    return DatasetInput(dataset, [InputTag("mlflow.data.context", "evaluation")])


def _chunks(items: Sequence[Any], size: int) -> Iterable[Sequence[Any]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


def _machine() -> str:
    return f"{uuid.getnode():012x}"

"""Studies over settings in MLflow: one run a study, and one a trial under it, in the experiment ``STUDY/tuning``."""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from ontogeny.core.tuning import NAMES, Setting, Trial, TuningRecord
from ontogeny.records import pack
from ontogeny.tracking.content import CURRENT, FINGERPRINT, NOTE, Point, RunContent
from ontogeny.tracking.publishing import (
    PublishReport,
    Tally,
    log_files,
    log_numbers,
    open_experiment,
    open_shelf,
    write_run,
    written,
)
from ontogeny.tracking.store import Store

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

log = logging.getLogger(__name__)
TUNING: Final = "tuning"
_NOTE_OF_ALL: Final = (
    "**One run is one study over settings** (which method, how many steps, which threshold?), **and under it one run a "
    "trial.** Open a study's run: *Overview* says what is recommended and why; *Artifacts* have its pictures. Filter "
    "trials: `tags.current = 'true' and tags.kind = 'trial' and tags.feasible = 'true'`, sort by the metric `edges`."
)
_CONTENT: Final = "content"


@dataclass(frozen=True)
class Told:
    """What the job cache knows of a trial."""

    finished: float | None
    """Seconds since the epoch."""
    seconds: float
    """That scoring and search took; NaN: unknown."""


def unknown(_: Setting) -> Told:
    """Stands for a cache that knows nothing."""
    return Told(None, math.nan)


@dataclass(frozen=True)
class TuningProjection:
    """What is to be shown of one study over settings."""

    record: TuningRecord
    study: str
    """The experiment is named STUDY/tuning."""
    files: Mapping[str, bytes]
    """Pictures and tables, by path."""
    now: float
    """Stands for the moment of a trial that `told` does not know."""
    told: Callable[[Setting], Told] = field(default=unknown)
    commit: str | None = None

    @property
    def parent(self) -> str:
        """Fingerprint of the study's run: the same while its trials go on."""
        r = self.record
        checkpoints = [(c.name, c.weights) for c in r.checkpoints]
        return _digest("study", self.study, r.name, r.task, r.mode, r.target, r.form, checkpoints)

    @property
    def content(self) -> str:
        """Digest of everything that the study's run shows."""
        return _digest(pack(_without_seconds(self.record))[0])

    def child(self, trial: Trial) -> str:
        """Fingerprint of a trial's run."""
        return _digest(self.parent, pack(_still(trial))[0])

    def parent_run(self) -> RunContent:
        """The study's run."""
        r, best = self.record, self.record.recommended
        numbers = {name: getattr(best, name) for name in ("edges", "passes", "faithfulness", "held_out")}
        numbers |= {"trials": len(r.trials), "feasible": sum(t.violation(r.target) <= 0 for t in r.trials)}
        moment = max((t for t, _ in self._moments()), default=self.now)
        params = {"task": r.task, "mode": r.mode, "target": f"{r.target:g}", "faithfulness": r.form}
        params["checkpoints"] = ", ".join(c.name for c in r.checkpoints)
        return RunContent(
            name=f"tuning {r.name}",
            tags=self._tags("study", self.parent) | {NOTE: _note(r), _CONTENT: self.content},
            params=params,
            points=_points(numbers, moment),
            files=self.files,
            dataset=None,
            seconds=moment,
        )

    def child_run(self, place: int, trial: Trial, parent: str) -> RunContent:
        """A trial's run; `parent` is the id of the study's run."""
        r, told = self.record, self.told(trial.setting)
        moment = self.now if told.finished is None else told.finished
        numbers = {name: getattr(trial, name) for name in ("edges", "passes", "faithfulness", "held_out")}
        numbers |= {"seconds": told.seconds, "trial": float(place)}
        for name, e in trial.evaluations.items():
            numbers |= {f"at/{_safe(name)}/edges": e.edges, f"at/{_safe(name)}/tune": e.tune.value}
            numbers |= {f"at/{_safe(name)}/held_out": e.held_out.value}
        reasons = [f"`{name}`: {e.status}. {e.reason}" for name, e in trial.evaluations.items() if e.reason]
        tags = self._tags("trial", self.child(trial)) | {
            "mlflow.parentRunId": parent,
            "status": "complete" if trial.complete else "no circuit",
            "feasible": str(trial.violation(r.target) <= 0).lower(),
            "front": str(place in r.front).lower(),
            "baseline": trial.baseline,
            "recommended": str(trial.setting == r.recommended.setting).lower(),
            NOTE: "\n\n".join([str(trial.setting), *reasons]),
        }
        return RunContent(
            name=f"{r.name} {place}",
            tags=tags,
            params={name: str(getattr(trial.setting, name)) for name in NAMES},
            points=_points(numbers, moment),
            files={},
            dataset=None,
            seconds=moment,
        )

    def _moments(self) -> Iterator[tuple[float, Trial]]:
        for trial in self.record.trials:
            finished = self.told(trial.setting).finished
            if finished is not None:
                yield finished, trial

    def _tags(self, kind: str, fingerprint: str) -> dict[str, str]:
        tags = {"kind": kind, "task": self.record.task, "tuning": self.record.name, "mlflow.source.name": "ontogeny"}
        tags |= {FINGERPRINT: fingerprint, CURRENT: "true"}
        return tags | ({"git_commit": self.commit, "mlflow.source.git.commit": self.commit} if self.commit else {})


def publish_tuning(projections: Sequence[TuningProjection], store: Store) -> PublishReport:
    """Make `store` show studies over settings. A store that cannot be reached, or goes away, is reported, not raised.

    Runs of these studies that are no longer wanted are marked ``current = 'false'``; other studies are left alone.
    """
    names = tuple(dict.fromkeys(f"{p.study}/{TUNING}" for p in projections))
    tally, planned = Tally(), sum(1 + len(p.record.trials) for p in projections)
    reason = written(store, tally, lambda: _project(projections, store, tally)) if projections else ""
    if reason:
        log.warning("Not all trials could be published: %s. `ontogeny publish` adds them later.", reason)
    return PublishReport(store.uri, names, planned, **vars(tally), reason=reason)


def _project(projections: Sequence[TuningProjection], store: Store, tally: Tally) -> None:
    client = store.client()
    tags = {NOTE: _NOTE_OF_ALL, "mlflow.experimentKind": "custom_model_development"}
    for projection in projections:
        experiment = open_experiment(client, store, f"{projection.study}/{TUNING}", lambda _: tags)
        finished = open_shelf(client, store, experiment, tally).finished
        parent = _parent(client, experiment, projection, finished, tally)
        wanted = {projection.parent}
        for place, trial in enumerate(projection.record.trials):
            key = projection.child(trial)
            wanted.add(key)
            if key in finished:
                tally.kept += 1
            else:
                write_run(client, experiment, projection.child_run(place, trial, parent))
                tally.added += 1
        _mark(client, projection, finished, wanted, tally)


def _parent(
    client: MlflowClient,
    experiment: str,
    projection: TuningProjection,
    finished: Mapping[str, Sequence[Run]],
    tally: Tally,
) -> str:
    """Id of the study's run, made or brought up to date."""
    known = finished.get(projection.parent)
    if known is None:
        tally.added += 1
        return write_run(client, experiment, projection.parent_run())
    tally.kept += 1
    run, content = known[0], projection.parent_run()
    if run.data.tags.get(_CONTENT) != projection.content:
        log_numbers(client, run.info.run_id, replace(content, params={}))
        log_files(client, run.info.run_id, content)
        for key in (NOTE, _CONTENT):
            client.set_tag(run.info.run_id, key, content.tags[key])
    return str(run.info.run_id)


def _mark(
    client: MlflowClient,
    projection: TuningProjection,
    finished: Mapping[str, Sequence[Run]],
    wanted: set[str],
    tally: Tally,
) -> None:
    """Tag `current` of this study's runs that were there."""
    for fingerprint, (run, *_) in finished.items():
        if run.data.tags.get("tuning") != projection.record.name:
            continue
        value = str(fingerprint in wanted).lower()
        if run.data.tags.get(CURRENT) != value:
            client.set_tag(run.info.run_id, CURRENT, value)
            tally.retired += value == "false"


def _note(record: TuningRecord) -> str:
    best = record.recommended
    what = "Nothing is recommended." if best.setting is None else f"**Recommended: {best.setting}.**"
    return f"{what}\n\n{best.reason}"


def _points(numbers: Mapping[str, Any], moment: float) -> list[Point]:
    return [Point(name, float(value), 0, moment) for name, value in numbers.items() if math.isfinite(value)]


def _still(trial: Trial) -> Trial:
    evaluations = {name: replace(e, seconds=math.nan) for name, e in trial.evaluations.items()}
    return replace(trial, evaluations=evaluations)


def _without_seconds(record: TuningRecord) -> TuningRecord:
    return replace(record, trials=tuple(map(_still, record.trials)))


def _safe(name: str) -> str:
    """A checkpoint's name with the letters that MLflow takes."""
    return name.replace("@", "-")


def _digest(*facts: object) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]

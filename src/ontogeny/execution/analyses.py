"""One checkpoint as a job: loaded once for all tasks, and only what is not in the cache is computed.

A task's analysis has the units that `ontogeny.analysis` names (behaviour, scores, circuit), each cached under its own
fingerprint. The last checkpoint of a member has one more, its examination.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from ontogeny.analysis import (
    ANALYSES,
    DTYPES,
    Batches,
    analyse_behaviour,
    analyse_circuit,
    analyse_scores,
    tokenize_splits,
)
from ontogeny.core.circuit import EdgeScores
from ontogeny.core.errors import BadCheckpoint, OntogenyError
from ontogeny.core.pairs import Split, TaskDataset
from ontogeny.core.results import (
    Behaviour,
    CheckpointAnalysis,
    CheckpointRef,
    CircuitResult,
    ModelFacts,
    TaskAnalysis,
)
from ontogeny.execution.cache import JobCache
from ontogeny.execution.examination import Examination, examine
from ontogeny.execution.fingerprints import VERSIONS, fingerprint, torch_version
from ontogeny.execution.pool import Job, Report
from ontogeny.models.checkpoints import weights_digest
from ontogeny.models.subject import Subject, load_subject
from ontogeny.params import AnalyseParams
from ontogeny.records.datasets import read_dataset

Behaviours = Mapping[Split, Behaviour]
MaybeScores = EdgeScores | None


@dataclass(frozen=True)
class Work:
    """One checkpoint to analyse."""

    ref: CheckpointRef
    root: Path
    """`ref.path` is relative to it."""
    datasets: Mapping[str, Path]
    """Task -> folder of its data set."""
    digests: Mapping[str, str]
    """Task -> digest of its data set."""
    settings: AnalyseParams
    baselines: bool
    """Whether random circuits and complements stand beside the curves of this checkpoint."""
    last: bool
    """Whether it is the member's last, which is examined."""
    cache: Path
    device: str

    @property
    def jobs(self) -> JobCache:
        """The job cache."""
        return JobCache(self.cache)

    @cached_property
    def units(self) -> dict[str, dict[str, str]]:
        """Task -> analysis -> fingerprint."""
        return {task: self._units(digest) for task, digest in self.digests.items()}

    @cached_property
    def runs(self) -> dict[str, str]:
        """Task -> fingerprint of all its units at this step of this member: the identity of a run in MLflow."""
        ref = self.ref
        return {
            task: fingerprint(suite=ref.suite, member=ref.member, step=ref.step, task=task, units=units)
            for task, units in self.units.items()
        }

    @cached_property
    def model(self) -> str:
        """Fingerprint of the model's facts."""
        return fingerprint(kind="model", weights=self.ref.weights_digest)

    @cached_property
    def examination(self) -> str:
        """Fingerprint of the examination."""
        version, digests = VERSIONS["examination"], dict(self.digests)
        return self._fingerprint("examination", version, datasets=digests, step=self.ref.step)

    @property
    def is_done(self) -> bool:
        """Whether there is nothing left to compute."""
        units = [key for units in self.units.values() for key in units.values()]
        more = [self.examination] if self.last else []
        return all(key in self.jobs for key in [self.model, *units, *self.runs.values(), *more])

    def _units(self, dataset: str) -> dict[str, str]:
        settings, units = self.settings.model_dump(mode="json"), dict[str, str]()
        settings["baselines"] |= {"every": None, "here": self.baselines}
        for analysis in ANALYSES:
            sections = {name: settings[name] for name in analysis.sections}
            needs = {name: units[name] for name in analysis.needs}
            units[analysis.name] = self._fingerprint(
                analysis.name, analysis.version, dataset=dataset, settings=sections, needs=needs
            )
        return units

    def _fingerprint(self, kind: str, version: str, **facts: object) -> str:
        return fingerprint(
            kind=kind,
            version=version,
            torch=torch_version(),
            device=self.device.split(":")[0],
            weights=self.ref.weights_digest,
            precision=self.settings.precision,
            **facts,
        )


def versions() -> dict[str, str]:
    """Version of everything that is cached, by name."""
    return VERSIONS | {analysis.name: analysis.version for analysis in ANALYSES}


def analysis_job(work: Work) -> Job:
    """The job that completes the work on a checkpoint."""
    lock = work.cache / "locks" / f"{fingerprint(runs=list(work.runs.values()))}.lock"
    return Job(f"{work.ref.member} step {work.ref.step}", analyse, (work,), lock)


def analyse(work: Work, report: Report) -> None:
    """Compute and keep what is missing (in a worker).

    Raises:
        BadCheckpoint: the checkpoint cannot be read, or is not the one that the reference names.
    """
    if work.is_done:
        return
    folder, jobs = work.root / work.ref.path, work.jobs
    digest = weights_digest(folder)
    if digest != work.ref.weights_digest:
        raise BadCheckpoint(
            f"{work.ref.path} was changed: its weights have the digest {digest}, expected was "
            f"{work.ref.weights_digest}. Delete the folder of its member and run `make study` again."
        )
    subject = load_subject(folder, device=work.device, dtype=DTYPES[work.settings.precision])
    batches = {task: tokenize_splits(subject, _dataset(path)) for task, path in work.datasets.items()}
    for place, task in enumerate(work.datasets):
        report(place / len(batches), task)
        _analyse_task(work, subject, task, batches[task])
        if work.runs[task] not in jobs:
            jobs.store(work.runs[task], tuple(work.units[task].values()))
    if work.last and work.examination not in jobs and subject.tokenizer is not None:
        held_out = {task: splits["held_out"] for task, splits in batches.items() if "held_out" in splits}
        jobs.store(work.examination, examine(subject, work.ref.step, held_out, subject.tokenizer))
    if work.model not in jobs:
        jobs.store(work.model, subject.facts)


def _analyse_task(work: Work, subject: Subject, task: str, batches: Batches) -> None:
    """The units of one task; each is computed only if it is missing."""
    jobs, keys, settings = work.jobs, work.units[task], work.settings
    behaviour: Behaviours | None = jobs.load(Behaviours, keys["behaviour"])
    if behaviour is None:
        behaviour = analyse_behaviour(subject, batches, settings)
        jobs.store(keys["behaviour"], behaviour)
    scores: MaybeScores = jobs.load(MaybeScores, keys["scores"])
    if keys["scores"] not in jobs:
        scores = analyse_scores(subject, batches, behaviour, settings)
        jobs.store(keys["scores"], scores)
    if keys["circuit"] not in jobs:
        circuit = analyse_circuit(subject, batches, behaviour, scores, settings, baselines=work.baselines)
        jobs.store(keys["circuit"], circuit)


def assemble(work: Work) -> CheckpointAnalysis:
    """The analysis of a checkpoint whose work is done, from the cache.

    Raises:
        OntogenyError: a unit is missing or damaged (the next run computes it again).
    """
    tasks = {task: _assemble_task(work, task) for task in work.datasets}
    model: ModelFacts = _loaded(work, ModelFacts, work.model)
    return CheckpointAnalysis(work.ref, model, tasks)


def examination_of(work: Work) -> Examination:
    """The examination of a last checkpoint whose work is done.

    Raises:
        OntogenyError: it is missing or damaged.
    """
    examination: Examination = _loaded(work, Examination, work.examination)
    return examination


def _assemble_task(work: Work, task: str) -> TaskAnalysis:
    keys = work.units[task]
    behaviour: Behaviours = _loaded(work, Behaviours, keys["behaviour"])
    circuit: CircuitResult = _loaded(work, CircuitResult, keys["circuit"])
    return TaskAnalysis(task, work.digests[task], behaviour, work.jobs.load(MaybeScores, keys["scores"]), circuit)


def _loaded(work: Work, kind: Any, key: str) -> Any:
    value = work.jobs.load(kind, key)
    if value is None:
        raise OntogenyError(f"{work.jobs.path(key)} is missing or damaged: run `make study` again.")
    return value


@lru_cache(maxsize=16)
def _dataset(folder: Path) -> TaskDataset:
    return read_dataset(folder)

"""One checkpoint as a job: loaded once for all tasks, and only what is not in the cache is computed.

Its units are the analyses of each task that `ontogeny.analysis` names, each role of `ontogeny.components`, the model's
facts, and at the last checkpoint of a member its examination. Each is cached under its own fingerprint.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from ontogeny.analysis import (
    BEHAVIOUR,
    DTYPES,
    Batches,
    CircuitSearch,
    Roles,
    analyse_behaviour,
    analyse_ioi,
    analyse_role,
    analyse_scores,
    analyse_stability,
    analyse_verification,
    analyses_of,
    circuit_unasked,
    role_holders,
    search_circuit,
    tokenize_splits,
)
from ontogeny.components import ROLES, Material, Role, Texts, texts_of
from ontogeny.core.algorithm import AlgorithmResult, Verification
from ontogeny.core.audit import WeightsFacts
from ontogeny.core.circuit import EdgeScores
from ontogeny.core.errors import NotFinite, OntogenyError
from ontogeny.core.pairs import Split, TaskDataset
from ontogeny.core.results import (
    IOI,
    Behaviour,
    CheckpointAnalysis,
    CheckpointRef,
    CircuitResult,
    ModelFacts,
    StabilityResult,
    TaskAnalysis,
)
from ontogeny.core.roles import RoleScores
from ontogeny.execution.cache import JobCache
from ontogeny.execution.examination import Examination, examine
from ontogeny.execution.fingerprints import VERSIONS, fingerprint, torch_version
from ontogeny.execution.jobs import Job, Report
from ontogeny.models.checkpoints import Opener
from ontogeny.models.subject import Subject, load_subject
from ontogeny.params import AnalyseParams
from ontogeny.records.datasets import read_dataset
from ontogeny.tasks.corpus import held_out_documents
from ontogeny.tasks.tokenizer import FileTokenizer

Behaviours = Mapping[Split, Behaviour]
MaybeScores = EdgeScores | None
MaybeChecks = Verification | None


@dataclass(frozen=True)
class Work:
    """One checkpoint to analyse."""

    ref: CheckpointRef
    source: Opener
    """Opens it."""
    datasets: Mapping[str, Path]
    """Task -> folder of its data set."""
    digests: Mapping[str, str]
    """Task -> digest of its data set."""
    tokenizer: str
    """Digest of the tokenizer that the data sets were made with."""
    corpus: Path | None
    """Folder with the text that the models were not trained on."""
    text_digest: str | None
    """Digest of that text."""
    settings: AnalyseParams
    baselines: bool
    """Whether random circuits and complements stand beside the curves of this checkpoint."""
    last: bool
    """Whether it is the member's last, which is examined."""
    cache: Path
    device: str
    tokenizer_file: Path | None = None
    """The study's tokenizer; None: the checkpoint's own, which must be that of the data sets."""

    @property
    def jobs(self) -> JobCache:
        """The job cache."""
        return JobCache(self.cache)

    @cached_property
    def units(self) -> dict[str, dict[str, str]]:
        """Task -> analysis -> fingerprint."""
        return {task: self._units(task, digest) for task, digest in self.digests.items()}

    @cached_property
    def roles(self) -> dict[str, str]:
        """Role -> fingerprint, in the registry's order; none where they are not asked for."""
        found: dict[str, str] = {}
        if "algorithm" not in self.ref.analyses:
            return found
        for role in ROLES.values():
            found[role.name] = self._role(role, found)
        return found

    @cached_property
    def runs(self) -> dict[str, str]:
        """Task -> fingerprint of all that is known of it at this step of this member: a run's identity in MLflow."""
        ref = self.ref
        return {
            task: fingerprint(suite=ref.suite, member=ref.member, step=ref.step, task=task, units=units)
            for task, units in self.units.items()
        }

    @cached_property
    def model(self) -> str:
        """Fingerprint of the model's facts."""
        return fingerprint(kind="model", weights=self.ref.identity)

    @cached_property
    def weights(self) -> str:
        """Fingerprint of what loading tells of the weights."""
        return fingerprint(kind="weights", weights=self.ref.identity)

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
        return all(
            key in self.jobs
            for key in [self.model, self.weights, *units, *self.roles.values(), *self.runs.values(), *more]
        )

    def _units(self, task: str, dataset: str) -> dict[str, str]:
        settings, units = self.settings.model_dump(mode="json"), dict[str, str]()
        settings["baselines"] |= {"every": None, "here": self.baselines}
        for analysis in analyses_of(task, self.ref.analyses):
            sections = {name: _section(settings, name) for name in analysis.sections}
            needs = {name: self.roles if name == "roles" else units[name] for name in analysis.needs}
            units[analysis.name] = self._fingerprint(
                analysis.name, analysis.version, dataset=dataset, settings=sections, needs=needs
            )
        return units

    def _role(self, role: Role, known: Mapping[str, str]) -> str:
        """Of one role: its settings and material, the roles that it needs, and the engine that runs the model."""
        settings = self.settings.roles.model_dump(mode="json")
        return self._fingerprint(
            "role",
            role.version,
            role=role.name,
            engine=BEHAVIOUR.version,
            settings={name: settings[name] for name in role.sections},
            tokenizer=self.tokenizer,
            ioi=self.digests.get(IOI) if role.uses_ioi else None,
            text=self.text_digest if role.uses_text else None,
            needs={name: known[name] for name in role.needs},
        )

    def _fingerprint(self, kind: str, version: str, **facts: object) -> str:
        return fingerprint(
            kind=kind,
            version=version,
            torch=torch_version(),
            device=self.device.split(":")[0],
            weights=self.ref.identity,
            precision=self.settings.precision,
            **facts,
        )


def versions() -> dict[str, str]:
    """Version of everything that is cached, by name."""
    roles = {f"role {role.name}": role.version for role in ROLES.values()}
    return VERSIONS | {analysis.name: analysis.version for analysis in analyses_of(IOI)} | roles


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
    with opened_checkpoint(work) as subject:
        _analyse_subject(work, subject, report)


def _load(work: Work, folder: Path) -> Subject:
    """The subject; what is wrong with its weights is noted for the audit."""
    try:
        subject = load_subject(
            folder,
            device=work.device,
            dtype=DTYPES[work.settings.precision],
            tokenizer=None if work.tokenizer_file is None else FileTokenizer(work.tokenizer_file),
        )
    except NotFinite as error:
        work.jobs.store(work.weights, WeightsFacts("", error.count))
        raise
    if work.weights not in work.jobs:
        work.jobs.store(work.weights, WeightsFacts(subject.shape, 0))
    return subject


def _analyse_subject(work: Work, subject: Subject, report: Report) -> None:
    jobs = work.jobs
    batches = {task: tokenize_splits(subject, dataset_at(path)) for task, path in work.datasets.items()}
    report(0.0, "roles")
    roles = analyse_missing_roles(work, subject)
    for place, task in enumerate(work.datasets):
        report((place + 1) / (len(batches) + 1), task)
        _analyse_task(work, subject, task, batches[task], roles)
        if work.runs[task] not in jobs:
            jobs.store(work.runs[task], tuple(work.units[task].values()))
    if work.last and work.examination not in jobs and subject.tokenizer is not None:
        held_out = {task: splits["held_out"] for task, splits in batches.items() if "held_out" in splits}
        jobs.store(work.examination, examine(subject, work.ref.step, held_out, subject.tokenizer))
    if work.model not in jobs:
        jobs.store(work.model, subject.facts)


@contextmanager
def opened_checkpoint(work: Work) -> Iterator[Subject]:
    """The model of a checkpoint, while its files are there.

    Raises:
        BadCheckpoint: it cannot be read, or is not the one that the reference names.
    """
    with work.source.opened(work.ref) as folder:
        yield _load(work, folder)


def analyse_missing_roles(work: Work, subject: Subject, ioi: TaskDataset | None = None) -> dict[str, RoleScores]:
    """Every role; each is measured, and kept, only if it is missing. `ioi`: prompts instead of those in `datasets`."""
    material: Material | None = None
    found: dict[str, RoleScores] = {}
    for name, key in work.roles.items():
        known: RoleScores | None = work.jobs.load(RoleScores, key)
        if known is None:
            material = material or _material(work, subject, ioi)
            known = analyse_role(ROLES[name], subject, material, found, work.settings)
            work.jobs.store(key, known)
        found[name] = known
    return found


def _material(work: Work, subject: Subject, ioi: TaskDataset | None) -> Material:
    folder = work.datasets.get(IOI)
    prompts = dataset_at(folder) if ioi is None and folder is not None else ioi
    return Material(prompts, _text(work, subject))


def _text(work: Work, subject: Subject) -> Texts | None:
    if work.corpus is None or subject.tokenizer is None:
        return None
    wanted = 2 * work.settings.roles.copy_suppression.tokens
    return texts_of(held_out_documents(work.corpus), subject.tokenizer, wanted)


def _analyse_task(work: Work, subject: Subject, task: str, batches: Batches, roles: Roles) -> None:
    """The units of one task; each is computed only if it is missing."""
    jobs, keys, settings = work.jobs, work.units[task], work.settings
    behaviour: Behaviours | None = jobs.load(Behaviours, keys["behaviour"])
    if behaviour is None:
        behaviour = analyse_behaviour(subject, batches, settings)
        jobs.store(keys["behaviour"], behaviour)
    if "circuit" not in keys:
        return
    scores: MaybeScores = jobs.load(MaybeScores, keys["scores"])
    if keys["scores"] not in jobs:
        scores = analyse_scores(subject, batches, behaviour, settings)
        jobs.store(keys["scores"], scores)
    search: CircuitSearch | None = None
    circuit: CircuitResult | None = jobs.load(CircuitResult, keys["circuit"])
    if circuit is None:
        search = search_circuit(subject, batches, behaviour, scores, settings, baselines=work.baselines)
        circuit = search.result
        jobs.store(keys["circuit"], circuit)
    if keys["stability"] not in jobs:
        stability = analyse_stability(subject, batches, scores, circuit, settings, search=search)
        jobs.store(keys["stability"], stability)
    if "verification" in keys and keys["verification"] not in jobs:
        dataset = dataset_at(work.datasets[task])
        checks = analyse_verification(subject, dataset, batches, scores, circuit, roles, settings)
        jobs.store(keys["verification"], checks)
    if "algorithm" in keys and keys["algorithm"] not in jobs:
        jobs.store(keys["algorithm"], analyse_ioi(subject, batches, circuit, roles, settings))


def assemble(work: Work) -> CheckpointAnalysis:
    """The analysis of a checkpoint whose work is done, from the cache.

    Raises:
        OntogenyError: a unit is missing or damaged (the next run computes it again).
    """
    tasks = {task: _assemble_task(work, task) for task in work.datasets}
    model: ModelFacts = _loaded(work, ModelFacts, work.model)
    roles: dict[str, RoleScores] = {name: _loaded(work, RoleScores, key) for name, key in work.roles.items()}
    algorithm: AlgorithmResult | None = None
    if "algorithm" in work.units.get(IOI, {}):
        algorithm = _loaded(work, AlgorithmResult, work.units[IOI]["algorithm"])
    return CheckpointAnalysis(work.ref, model, tasks, roles, role_holders(roles, work.settings), algorithm)


def weights_of(work: Work) -> WeightsFacts | None:
    """What loading told of the weights; none if it was not loaded."""
    found: WeightsFacts | None = work.jobs.load(WeightsFacts, work.weights)
    return found


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
    if "circuit" not in keys:
        return TaskAnalysis(task, work.digests[task], behaviour, None, circuit_unasked())
    scores: MaybeScores = work.jobs.load(MaybeScores, keys["scores"])
    circuit: CircuitResult = _loaded(work, CircuitResult, keys["circuit"])
    stability: StabilityResult = _loaded(work, StabilityResult, keys["stability"])
    checks: MaybeChecks = work.jobs.load(MaybeChecks, keys["verification"]) if "verification" in keys else None
    return TaskAnalysis(task, work.digests[task], behaviour, scores, circuit, checks, stability)


def _loaded(work: Work, kind: Any, key: str) -> Any:
    value = work.jobs.load(kind, key)
    if value is None:
        raise OntogenyError(f"{work.jobs.path(key)} is missing or damaged: run `make study` again.")
    return value


def _section(settings: Mapping[str, Any], name: str) -> Any:
    """A section by its dotted name."""
    for part in name.split("."):
        settings = settings[part]
    return settings


@lru_cache(maxsize=16)
def dataset_at(folder: Path) -> TaskDataset:
    """A data set, read once a process."""
    return read_dataset(folder)

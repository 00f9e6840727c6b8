"""One checkpoint as a target: loaded once for all circuits that are carried to it and all heads that are taken out.

Its units are, for each task, the circuits of its own member's anchors (`carried`), those of other seeds (`seeds`) and
the ablations of roles (`ablations`); and the matching of heads with each other seed. Each is cached under a fingerprint
of the circuits, heads and role scores that it takes, so that another circuit at one anchor recomputes only its targets.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from ontogeny.analysis import CIRCUIT, tokenize_splits
from ontogeny.core.circuit import Circuit
from ontogeny.core.errors import OntogenyError
from ontogeny.core.pairs import PairBatch, Split, TaskDataset
from ontogeny.core.results import IOI
from ontogeny.core.roles import Head, RoleScores
from ontogeny.core.transfer import HeadAblation, HeadMatch
from ontogeny.execution.analyses import Work, analyse_missing_roles, dataset_at, opened_checkpoint
from ontogeny.execution.cache import JobCache
from ontogeny.execution.fingerprints import VERSIONS, fingerprint, torch_version
from ontogeny.execution.jobs import Job, Report
from ontogeny.models.subject import Subject
from ontogeny.params import TransferParams
from ontogeny.patching import CircuitEvaluator
from ontogeny.transfer import Carried, CarriedCircuit, ablate_roles, carry, carry_seeds, match_heads, role_vectors
from ontogeny.transfer.matching import Matching, Names

Roles = Mapping[str, RoleScores]
AllCarried = tuple[Carried, ...]
Ablations = tuple[HeadAblation, ...]
Matches = tuple[HeadMatch, ...]


@dataclass(frozen=True)
class TransferWork:
    """One anchor checkpoint, and what is taken to it."""

    at: Work
    """The checkpoint."""
    own: Mapping[str, Circuit | None]
    """Task -> the circuit that was found here; its keys are the tasks to be done."""
    sources: Mapping[str, tuple[CarriedCircuit, ...]]
    """Task -> circuits of this member's anchors."""
    mates: Mapping[str, Work]
    """Other seeds of the scale -> their checkpoint of the same step."""
    from_mates: Mapping[str, tuple[CarriedCircuit, ...]]
    """Task -> circuits found there."""
    holders: Mapping[str, Mapping[str, tuple[Head, ...]]]
    """Task -> role -> the heads to be ablated."""
    settings: TransferParams

    @property
    def jobs(self) -> JobCache:
        """The job cache."""
        return self.at.jobs

    @cached_property
    def matching(self) -> str:
        """Fingerprint of the matchings with all mates."""
        roles = {member: on_tune(work).roles for member, work in self.mates.items()}
        return self._fingerprint("matching", ours=on_tune(self.at).roles, theirs=roles)

    @cached_property
    def units(self) -> dict[str, dict[str, str]]:
        """Task -> unit -> fingerprint; units that have nothing to do are left out."""
        return {task: self._units(task) for task in self.own}

    @property
    def is_done(self) -> bool:
        """Whether there is nothing left to compute."""
        keys = [key for units in self.units.values() for key in units.values()]
        return all(key in self.jobs for key in [*keys, *([self.matching] if self.mates else [])])

    def _units(self, task: str) -> dict[str, str]:
        own = _digest(self.own[task])
        facts = {"dataset": self.at.digests[task], "ablation": self.at.settings.search.ablation, "own": own}
        draws = {"draws": self.settings.random_matchings, "seed": self.settings.seed}
        found: dict[str, str] = {}
        if self.sources[task]:
            found["carried"] = self._fingerprint("carried", circuits=_named(self.sources[task]), **facts, **draws)
        if self.from_mates[task]:
            circuits, matching = _named(self.from_mates[task]), self.matching
            found["seeds"] = self._fingerprint("seeds", circuits=circuits, matching=matching, **facts, **draws)
        if task in self.holders:
            sets = {"sets": self.settings.ablated_sets, "seed": self.settings.seed}
            heads = {role: list(map(list, each)) for role, each in self.holders[task].items()}
            place = {"step": self.at.ref.step, "task": task}
            found["ablations"] = self._fingerprint("ablations", holders=heads, **place, **facts, **sets)
        return found

    def _fingerprint(self, kind: str, **facts: object) -> str:
        return fingerprint(
            kind=f"transfer {kind}",
            version=VERSIONS["transfer"],
            engine=CIRCUIT.version,
            torch=torch_version(),
            device=self.at.device.split(":")[0],
            weights=self.at.ref.identity,
            precision=self.at.settings.precision,
            **facts,
        )


def on_tune(work: Work) -> Work:
    """The same checkpoint with its roles measured on the `tune` prompts, where they are measured on prompts."""
    prompts = tune_prompts(work)
    return replace(work, digests={} if prompts is None else {IOI: prompts.digest})


def tune_prompts(work: Work) -> TaskDataset | None:
    """IOI with `tune` in the place of `discover`, which circuits are found on; None without such prompts."""
    if IOI not in work.datasets:
        return None
    dataset = dataset_at(work.datasets[IOI])
    return None if "tune" not in dataset.splits else replace(dataset, splits={"discover": dataset.splits["tune"]})


def roles_job(work: Work) -> Job | None:
    """The job that measures the role vectors of a checkpoint; None if they are known."""
    roles = on_tune(work).roles
    if all(key in work.jobs for key in roles.values()):
        return None
    lock = work.cache / "locks" / f"{fingerprint(roles=list(roles.values()))}.lock"
    return Job(f"{work.ref.member} step {work.ref.step} roles", measure_roles, (work,), lock, weight=0.3)


def measure_roles(work: Work, report: Report) -> None:
    """Measure and keep the role vectors of a checkpoint (in a worker)."""
    report(0.0, "roles")
    with opened_checkpoint(work) as subject:
        analyse_missing_roles(on_tune(work), subject, tune_prompts(work))


def transfer_job(work: TransferWork) -> Job:
    """The job that completes the work on a target."""
    keys = [key for units in work.units.values() for key in units.values()]
    lock = work.at.cache / "locks" / f"{fingerprint(transfer=keys)}.lock"
    return Job(f"{work.at.ref.member} step {work.at.ref.step}", transfer, (work,), lock)


def transfer(work: TransferWork, report: Report) -> None:
    """Compute and keep what is missing (in a worker).

    Raises:
        BadCheckpoint: the checkpoint cannot be read, or is not the one that the reference names.
        OntogenyError: the roles of another seed are not known: their job failed.
    """
    if work.is_done:
        return
    with opened_checkpoint(work.at) as subject:
        _transfer(work, subject, report)


def _transfer(work: TransferWork, subject: Subject, report: Report) -> None:
    matchings: dict[str, Matching] = {}
    if work.mates:
        ours, graph = analyse_missing_roles(on_tune(work.at), subject, tune_prompts(work.at)), subject.graph
        theirs = {member: _roles(mate) for member, mate in work.mates.items()}
        matchings = {member: match_heads(*role_vectors(graph, roles, ours)) for member, roles in theirs.items()}
        if work.matching not in work.jobs:
            work.jobs.store(work.matching, _head_matches(work.at.ref.step, matchings))
    names = {member: matching.to for member, matching in matchings.items()}
    for place, (task, units) in enumerate(work.units.items()):
        report(place / len(work.units), task)
        if any(key not in work.jobs for key in units.values()):
            batch = reported(tokenize_splits(subject, dataset_at(work.at.datasets[task])))
            evaluator = CircuitEvaluator(subject, batch, work.at.settings.search.ablation)
            _complete(work, task, units, evaluator, names)


def reported(batches: Mapping[Split, PairBatch]) -> PairBatch:
    """`held_out`, or `discover` where a task has no other prompts."""
    return batches["held_out"] if "held_out" in batches else batches["discover"]


def _complete(
    work: TransferWork, task: str, units: Mapping[str, str], evaluator: CircuitEvaluator, names: Mapping[str, Names]
) -> None:
    """The units of one task; each starts afresh, so that it gives the same bits whatever was computed before."""
    settings, own = work.settings, work.own[task]
    draws, seed = settings.random_matchings, settings.seed
    for unit, key in units.items():
        if key in work.jobs:
            continue
        evaluator.forget()
        value: object
        if unit == "carried":
            value = carry(evaluator, work.sources[task], own, draws, seed)
        elif unit == "seeds":
            value = carry_seeds(evaluator, work.from_mates[task], names, own, draws, seed)
        else:
            holders, step = work.holders[task], work.at.ref.step
            value = ablate_roles(evaluator, task, step, holders, settings.ablated_sets, seed)
        work.jobs.store(key, value)


def carried_of(work: TransferWork, task: str) -> AllCarried:
    """All circuits that were carried to a target whose work is done."""
    units = work.units[task]
    return tuple(c for unit in ("carried", "seeds") if unit in units for c in _loaded(work, AllCarried, units[unit]))


def ablations_of(work: TransferWork, task: str) -> Ablations:
    """The ablations of a target whose work is done."""
    key = work.units[task].get("ablations")
    return () if key is None else _loaded(work, Ablations, key)


def matches_of(work: TransferWork) -> Matches:
    """How the heads of other seeds were matched with the target's."""
    return _loaded(work, Matches, work.matching) if work.mates else ()


def _loaded(work: TransferWork, kind: object, key: str) -> tuple[Any, ...]:
    value = work.jobs.load(kind, key)
    if value is None:
        raise OntogenyError(f"{work.jobs.path(key)} is missing or damaged: run `make study` again.")
    found: tuple[Any, ...] = value
    return found


def _roles(work: Work) -> Roles:
    known = {name: work.jobs.load(RoleScores, key) for name, key in on_tune(work).roles.items()}
    missing = [name for name, scores in known.items() if scores is None]
    if missing:
        raise OntogenyError(f"The roles of {work.ref.member} at step {work.ref.step} could not be measured: {missing}.")
    return known


def _head_matches(step: int, matchings: Mapping[str, Matching]) -> Matches:
    return tuple(
        HeadMatch(step, member, layer, head, int(to), float(matching.distance[layer, head]))
        for member, matching in matchings.items()
        for layer, heads in enumerate(matching.to)
        for head, to in enumerate(heads)
    )


def _named(circuits: tuple[CarriedCircuit, ...]) -> list[list[object]]:
    return [[c.member, c.step, _digest(c.circuit)] for c in circuits]


def _digest(circuit: Circuit | None) -> str | None:
    return None if circuit is None else hashlib.sha256(circuit.edges.numpy().tobytes()).hexdigest()[:32]

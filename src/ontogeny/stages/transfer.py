"""Stage `transfer`, an item a member: its circuits at its other checkpoints and in other seeds, its role heads out."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ontogeny.core.circuit import Circuit
from ontogeny.core.results import CheckpointAnalysis
from ontogeny.core.roles import ROLES_OF_TASKS, Head
from ontogeny.core.schedule import choose_anchors
from ontogeny.core.transfer import HeadsOf, Transfer
from ontogeny.execution.analyses import Work
from ontogeny.execution.jobs import Job
from ontogeny.execution.progress import progress_of
from ontogeny.execution.transfers import (
    TransferWork,
    ablations_of,
    carried_of,
    matches_of,
    roles_job,
    transfer_job,
)
from ontogeny.params import split_member
from ontogeny.records import Failure, MemberRecord, TransferRecord, read_member, write_transfer
from ontogeny.records.datasets import read_checkpoints
from ontogeny.stages.analyse import works_of
from ontogeny.stages.study import Study
from ontogeny.transfer import Carried, CarriedCircuit

log = logging.getLogger(__name__)
_UNLEARNT = ("not_learned", "nan")
_OWN: tuple[HeadsOf, ...] = ("own", "random")
_MATES: tuple[HeadsOf, ...] = ("unmatched", "matched", "random")
Analyses = Mapping[int, CheckpointAnalysis]
"""By step."""


def run(study: Study, item: str | None) -> None:
    """Write data/transfer/MEMBER and data/failures/transfer-MEMBER.json."""
    assert item is not None
    sides = _sides(study, item)
    works = _works(study, item, sides)
    due = [work for work in works if not work.is_done]
    batches = [jobs for jobs in (roles_first(due), [transfer_job(work) for work in due]) if jobs]
    ahead = study.source.ahead([work.at.ref for work in due])
    with ahead, progress_of(f"Carrying circuits of {item}", batches[0] if batches else ()) as progress:
        outcomes = study.executor().run(next_of(batches), progress, lambda: next_of(batches))
    errors = {outcome.job.name: outcome.error for outcome in outcomes if outcome.error is not None}
    failures = [
        Failure(item, work.at.ref.step, work.at.ref.path, errors[transfer_job(work).name])
        for work in due
        if transfer_job(work).name in errors
    ]
    failed = {failure.step for failure in failures}
    write_transfer(
        study.transfers(item), _record(study, item, sides, [w for w in works if w.at.ref.step not in failed])
    )
    study.write_failures(f"transfer-{item}", failures)
    log.info("%s: %d anchors, %d done now, %d failed.", item, len(works), len(due) - len(failures), len(failures))


def anchors_of(study: Study, member: str) -> list[TransferWork]:
    """The work at each anchor of a member that was analysed."""
    return _works(study, member, _sides(study, member))


def roles_first(works: Sequence[TransferWork]) -> list[Job]:
    """What has to be done before `works`: measuring the roles of other seeds, each once."""
    jobs = [job for work in works for mate in work.mates.values() if (job := roles_job(mate)) is not None]
    return list({job.name: job for job in jobs}.values())


def next_of(batches: list[list[Job]]) -> list[Job]:
    """The jobs that come next, taken from `batches`; none when nothing is left."""
    return batches.pop(0) if batches else []


def mates_of(member: str, members: Sequence[str]) -> tuple[str, ...]:
    """Other seeds of the same scale."""
    scale, _ = split_member(member)
    return tuple(other for other in members if other != member and split_member(other)[0] == scale)


@dataclass(frozen=True)
class _Side:
    """One member: its anchors, and what is known of them."""

    anchors: tuple[int, ...]
    works: Mapping[int, Work]
    """By step, those that were analysed."""
    record: MemberRecord
    analyses: Analyses

    def circuit(self, task: str, step: int) -> Circuit | None:
        """The faithful circuit that was found, if one was."""
        analysis = self.analyses.get(step)
        result = analysis.tasks.get(task) if analysis is not None else None
        return result.circuit.circuit if result is not None and result.circuit.status == "found" else None

    def status(self, task: str, step: int) -> str:
        """Of the search for a circuit."""
        analysis = self.analyses.get(step)
        return "not analysed" if analysis is None or task not in analysis.tasks else analysis.tasks[task].circuit.status


def _sides(study: Study, member: str) -> dict[str, _Side]:
    """The member and the other seeds of its scale."""
    return {each: _side(study, each) for each in (member, *mates_of(member, study.params.suite.members))}


def _side(study: Study, member: str) -> _Side:
    refs = read_checkpoints(study.checkpoints(member)).refs
    record, settings = read_member(study.analyses(member)), study.params.transfer
    steps = [ref.step for ref in refs if "circuits" in ref.analyses and ref.step not in record.duplicates]
    anchors = choose_anchors(steps, settings.anchors, settings.octaves, start=study.params.starts_trained(member))
    analyses = {analysis.ref.step: analysis for analysis in record.analyses}
    works = {work.ref.step: work for work in works_of(study, member) if work.ref.step in analyses}
    return _Side(anchors, works, record, analyses)


def _works(study: Study, member: str, sides: Mapping[str, _Side]) -> list[TransferWork]:
    """One for each anchor that was analysed."""
    here, settings, tasks = sides[member], study.params.transfer, study.params.datasets.tasks
    others = [other for other in sides if other != member]
    ablated = here.anchors[len(here.anchors) - settings.ablated_anchors :] if settings.ablated_anchors else ()

    def circuits(of: str, task: str, steps: Sequence[int]) -> Iterator[CarriedCircuit]:
        for step in steps:
            circuit = sides[of].circuit(task, step)
            if circuit is not None:
                yield CarriedCircuit(of, step, circuit)

    found = []
    for step in (anchor for anchor in here.anchors if anchor in here.works):
        from_mates = {task: tuple(c for of in others for c in circuits(of, task, [step])) for task in tasks}
        met = {circuit.member for each in from_mates.values() for circuit in each}
        found.append(
            TransferWork(
                at=here.works[step],
                own={task: here.circuit(task, step) for task in tasks},
                sources={task: tuple(circuits(member, task, here.anchors)) for task in tasks},
                mates={of: sides[of].works[step] for of in others if of in met},
                from_mates=from_mates,
                holders=_holders(here, step, tasks) if step in ablated else {},
                settings=settings,
            )
        )
    return found


def _holders(side: _Side, step: int, tasks: Sequence[str]) -> dict[str, dict[str, tuple[Head, ...]]]:
    """Task -> role -> heads that hold it, for the roles that a task is said to need, where it is learnt."""
    held, learnt = side.analyses[step].holders, [t for t in tasks if side.status(t, step) not in _UNLEARNT]
    return {
        task: {role: held.get(role, ()) for role in ROLES_OF_TASKS[task]} for task in learnt if task in ROLES_OF_TASKS
    }


def _record(study: Study, member: str, sides: Mapping[str, _Side], done: Sequence[TransferWork]) -> TransferRecord:
    """Put the record together from the cache: a row for everything that was asked for, measured or not."""
    works = {work.at.ref.step: work for work in done}
    rows: list[Transfer] = []
    for task in study.params.datasets.tasks:
        for step in sides[member].anchors:
            work = works.get(step)
            carried = {(c.member, c.step, c.heads): c for c in carried_of(work, task)} if work is not None else {}
            for of, source, heads in _asked(member, sides, step):
                row = carried.get((of, source, heads))
                reason = _why_not(sides, member, of, task, source, step, failed=work is None)
                rows.append(_row(task, step, of, source, heads, row, reason))
    return TransferRecord(
        suite=study.params.suite.name,
        member=member,
        anchors=sides[member].anchors,
        transfers=tuple(rows),
        ablations=tuple(a for work in done for task in work.own for a in ablations_of(work, task)),
        matches=tuple(match for work in done for match in matches_of(work)),
    )


def _asked(member: str, sides: Mapping[str, _Side], step: int) -> Iterator[tuple[str, int, HeadsOf]]:
    """Whose circuit, of which step, under which names of heads."""
    for source in sides[member].anchors:
        yield from ((member, source, heads) for heads in _OWN)
    for of in (other for other in sides if other != member):
        yield from ((of, step, heads) for heads in _MATES)


def _why_not(
    sides: Mapping[str, _Side], member: str, of: str, task: str, source: int, step: int, *, failed: bool
) -> str:
    """`measured`, or why a number is not (fully) defined."""
    if sides[of].circuit(task, source) is None:
        return f"no circuit at step {source}: {sides[of].status(task, source)}"
    target = sides[member].status(task, step)
    if failed:
        return f"failed at step {step}" if target != "not analysed" else f"not analysed at step {step}"
    return target if target in _UNLEARNT or target == "trivial" else "measured"


def _row(task: str, step: int, of: str, source: int, heads: HeadsOf, carried: Carried | None, status: str) -> Transfer:
    nan = math.nan
    if carried is None:
        return Transfer(task, step, of, source, heads, status, None, nan, nan, nan, nan)
    value = carried.faithfulness
    raw = value.raw if status == "measured" else nan
    normalised = value.normalised if status in ("measured", "trivial") else nan
    return Transfer(task, step, of, source, heads, status, carried.kept, value.metric, raw, normalised, carried.jaccard)

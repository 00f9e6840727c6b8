"""Stage `analyse`, an item a member: every checkpoint, all tasks."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence

from ontogeny.core.audit import audit
from ontogeny.execution.analyses import Work, analysis_job, assemble, examination_of, weights_of
from ontogeny.execution.progress import progress_of
from ontogeny.models.checkpoints import TrainedSource
from ontogeny.records import Failure, MemberRecord, pack, write_json, write_member
from ontogeny.records.datasets import read_checkpoints, read_dataset
from ontogeny.stages.study import Study
from ontogeny.tasks.corpus import held_out_documents

log = logging.getLogger(__name__)
EXAMINATION = "examination.json"


def run(study: Study, item: str | None) -> None:
    """Write data/analyses/MEMBER and data/failures/analyse-MEMBER.json."""
    assert item is not None
    works = works_of(study, item)
    due = [work for work in works if not work.is_done]
    jobs = [analysis_job(work) for work in reversed(due)]
    ahead = study.source.ahead([work.ref for work in reversed(due)])
    with ahead, progress_of(f"Analysing {item}", jobs) as progress:
        outcomes = study.executor().run(jobs, progress)
    errors = {outcome.job.name: outcome.error for outcome in outcomes if outcome.error is not None}
    failures = [
        Failure(item, work.ref.step, work.ref.path, errors[analysis_job(work).name])
        for work in due
        if analysis_job(work).name in errors
    ]
    _record(study, item, works, failures)
    study.write_failures(f"analyse-{item}", failures)
    log.info("%s: %d checkpoints, %d analysed now, %d failed.", item, len(works), len(due) - len(errors), len(failures))


def works_of(study: Study, member: str) -> list[Work]:
    """The work on each checkpoint; random circuits are drawn at every n-th checkpoint and the last (METHODS 5.4)."""
    refs = read_checkpoints(study.checkpoints(member)).refs
    settings, tasks, source = study.params.analyse, study.params.datasets.tasks, study.source
    datasets = {task: read_dataset(study.dataset(task)) for task in tasks}
    text = "\n".join(held_out_documents(study.corpus))
    return [
        Work(
            ref=ref,
            source=source,
            datasets={task: study.dataset(task) for task in tasks},
            digests={task: dataset.digest for task, dataset in datasets.items()},
            tokenizer=datasets[tasks[0]].tokenizer_digest,
            tokenizer_file=None if isinstance(source, TrainedSource) else study.tokenizer,
            corpus=study.corpus if text else None,
            text_digest=hashlib.sha256(text.encode()).hexdigest() if text else None,
            settings=settings,
            baselines=place % settings.baselines.every == 0 or place == len(refs) - 1,
            last=place == len(refs) - 1,
            cache=study.places.jobs,
            device=study.params.execution.device,
        )
        for place, ref in enumerate(refs)
    ]


def _record(study: Study, member: str, works: Sequence[Work], failures: Sequence[Failure]) -> None:
    """Put the record together from the cache."""
    failed = {failure.step for failure in failures}
    loaded = {work.ref.step: facts for work in works if (facts := weights_of(work)) is not None}
    done = [work for work in works if work.ref.step not in failed]
    record = MemberRecord(
        suite=study.params.suite.name,
        member=member,
        analyses=tuple(assemble(work) for work in done),
        fingerprints={(work.ref.step, task): key for work in done for task, key in work.runs.items()},
        failures=tuple(failures),
        findings=audit([work.ref for work in works], loaded),
    )
    folder = study.analyses(member)
    write_member(folder, record)
    if done and done[-1].last:
        write_json(folder / EXAMINATION, pack(examination_of(done[-1]))[0])

"""Shares of a study's work, for machines that share its folder: `ontogeny work STAGE --shard i/n`.

A shard does every n-th job of a stage and leaves the results in the job cache (or, trained, in `.cache/training`). It
writes no output: the next `ontogeny study` finds the work done, puts the outputs together, and publishes. Which jobs a
shard does depends on the params alone, not on what is done already, so that shards started at any time never overlap.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from ontogeny.core.errors import OntogenyError
from ontogeny.execution.analyses import analysis_job
from ontogeny.execution.jobs import Job
from ontogeny.execution.progress import progress_of
from ontogeny.execution.training import is_complete, training_job
from ontogeny.execution.transfers import transfer_job
from ontogeny.models.checkpoints import TrainedSource
from ontogeny.stages.analyse import works_of
from ontogeny.stages.checkpoints import trainings_of
from ontogeny.stages.study import Study
from ontogeny.stages.transfer import anchors_of, next_of, roles_first

log = logging.getLogger(__name__)


class Shard(NamedTuple):
    """One share of the work."""

    number: int
    """Counted from 0."""
    of: int


class Piece(NamedTuple):
    """One job of a stage."""

    is_done: Callable[[], bool]
    job: Callable[[], Job]
    before: Callable[[], list[Job]] = list
    """Jobs that must be done first; other pieces may name the same ones."""


def parse_shard(text: str) -> Shard:
    """``3/16`` -> the fourth of 16 shares.

    Raises:
        OntogenyError: it is not of that form, or the number is not below the count.
    """
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if match is None or int(match[1]) >= int(match[2]):
        raise OntogenyError(
            f"--shard {text}: expected i/n with i from 0 to n - 1, e.g. 0/16; in a Slurm array of 0-15 that is "
            "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT."
        )
    return Shard(int(match[1]), int(match[2]))


def pieces_of(study: Study, stage: str) -> list[Piece]:
    """All jobs of a stage, always in the same order: neighbours are about as much work.

    Raises:
        OntogenyError: the stage has no jobs that can be shared, or what it needs is not there yet.
    """
    kinds: dict[str, Callable[[Study], list[Piece]]] = {
        "checkpoints": _trainings,
        "analyse": _analyses,
        "transfer": _transfers,
    }
    if stage not in kinds:
        raise OntogenyError(f"There is no work to share in a stage {stage!r}; choose from {', '.join(kinds)}.")
    return kinds[stage](study)


def share(pieces: Sequence[Piece], shard: Shard) -> list[Piece]:
    """Every n-th piece: together the shards have each exactly once."""
    return list(pieces[shard.number :: shard.of])


def run_shard(study: Study, stage: str, shard: Shard) -> bool:
    """Do one share; whether every job of it ended well."""
    mine = share(pieces_of(study, stage), shard)
    due = [piece for piece in mine if not piece.is_done()]
    before = {job.name: job for piece in due for job in piece.before()}
    jobs = [piece.job() for piece in due]
    batches = [batch for batch in (list(before.values()), jobs) if batch]
    title = f"{stage} {shard.number}/{shard.of}"
    with progress_of(title, batches[0] if batches else ()) as progress:
        outcomes = study.executor().run(next_of(batches), progress, lambda: next_of(batches))
    failed = sum(outcome.error is not None for outcome in outcomes if outcome.job.name not in before)
    log.info("%s: %d jobs, %d done now, %d failed.", title, len(mine), len(jobs) - failed, failed)
    return failed == 0


def _trainings(study: Study) -> list[Piece]:
    source = study.source
    if not isinstance(source, TrainedSource):
        raise OntogenyError("The checkpoints of this suite are not trained here: share the stage `analyse`.")
    return [
        Piece(lambda t=t: is_complete(t), lambda t=t: training_job(t))  # type: ignore[misc]
        for t in trainings_of(study, source)
    ]


def _analyses(study: Study) -> list[Piece]:
    """Of all members; the last checkpoints first, as the stage does."""
    works = [work for member in study.params.suite.members for work in reversed(works_of(study, member))]
    return [Piece(lambda w=w: w.is_done, lambda w=w: analysis_job(w)) for w in works]  # type: ignore[misc]


def _transfers(study: Study) -> list[Piece]:
    """Of all members: an anchor checkpoint each."""
    works = [work for member in study.params.suite.members for work in anchors_of(study, member)]
    return [
        Piece(lambda w=w: w.is_done, lambda w=w: transfer_job(w), lambda w=w: roles_first([w]))  # type: ignore[misc]
        for w in works
    ]

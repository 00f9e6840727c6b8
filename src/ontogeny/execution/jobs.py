"""What a job is, how it ends, and what runs jobs: the executor protocol. Importing this is cheap: no torch."""

from __future__ import annotations

import logging
import os
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ontogeny.core.errors import OntogenyError
from ontogeny.execution.disk import is_full
from ontogeny.execution.locks import held

log = logging.getLogger(__name__)

ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "TQDM_DISABLE": "1"}
"""Environment of a worker: one thread (these count when numpy is imported), and no bars of other libraries."""

Report = Callable[[float, str], None]
"""How a job tells how far it is: the share done, 0 to 1, and a word on what it does."""


@dataclass(frozen=True)
class Job:
    """One piece of work for a worker."""

    name: str
    """For people: ``small-s0 step 64``."""
    function: Callable[..., None]
    """A module's function, called as ``function(*arguments, report=report)``; it keeps its results itself."""
    arguments: tuple[Any, ...] = ()
    lock: Path | None = None
    """Held while the job runs, so that two studies do not do the same work at once."""
    weight: float = 1.0
    """Share of the progress bar."""


@dataclass(frozen=True)
class Outcome:
    """How a job ended."""

    job: Job
    error: str | None
    """None: well. Otherwise one line on what was wrong."""


class Progress(Protocol):
    """Who is told what happens; see `ontogeny.execution.progress`."""

    def update(self, job: Job, share: float, note: str) -> None:
        """A job is at `share` of its work."""

    def finish(self, outcome: Outcome) -> None:
        """A job has ended."""

    def expect(self, jobs: Sequence[Job]) -> None:
        """There are further jobs."""


More = Callable[[], Sequence[Job]]


class Executor(Protocol):
    """Where jobs run. Results travel through files (the job cache), so that an executor only says how a job ended.

    Whatever the executor: a job runs on one torch thread; a job that raises is recorded and the others go on; one
    whose worker dies is tried again, and recorded as failed only when that happens several times.
    """

    def run(self, jobs: Sequence[Job], progress: Progress, more: More = tuple) -> list[Outcome]:
        """Run all jobs, the first ones first; outcomes in jobs' order.

        When all are done `more` may give further ones, which the same workers do, until it gives none.
        """
        ...


@dataclass
class Attempt:
    """A job, its place among the jobs, and how often a worker has started on it."""

    index: int
    job: Job
    tries: int = 0


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def attempted(job: Job, report: Report) -> str | None:
    """Do a job (in a worker); the reason in one line if it fails."""
    try:
        if job.lock is None:
            job.function(*job.arguments, report=report)
        else:
            with held(job.lock, job.name):
                job.function(*job.arguments, report=report)
    except OntogenyError as error:
        return " ".join(str(error).split())
    except Exception as error:
        if not is_full(error):
            log.error("%s failed:\n%s", job.name, traceback.format_exc())
        return " ".join(f"{type(error).__name__}: {error}".split())
    return None

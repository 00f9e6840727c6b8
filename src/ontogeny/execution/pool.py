"""Worker processes: fresh interpreters (spawn), one torch thread each, that end when their parent does.

A job that raises is recorded and the others go on. A worker that dies (kill -9, out of memory) loses only the job it
was at: that job gets one more try in a fresh worker, then it is recorded as failed too. Results travel through files
(the job cache), never through the pipe.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from multiprocessing.util import Finalize
from pathlib import Path
from typing import Any, Protocol

from ontogeny.core.errors import OntogenyError
from ontogeny.execution.lifeline import die_with_parent
from ontogeny.execution.locks import held

log = logging.getLogger(__name__)

_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "TQDM_DISABLE": "1"}
"""Of a worker: one thread (these count when numpy is imported), and no bars of other libraries."""
_TRIES = 2
_SECONDS_TO_END = 5.0

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


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_jobs(
    jobs: Sequence[Job], n_jobs: int | None, progress: Progress, more: Callable[[], Sequence[Job]] = tuple
) -> list[Outcome]:
    """Run all jobs, the first ones first, on at most `n_jobs` workers (none: one a core); outcomes in jobs' order.

    When all are done `more` may give further ones, which the same workers do, until it gives none.
    """
    workers: list[_Worker] = []
    jobs = list(jobs) or list(more())
    waiting = deque(_Attempt(index, job) for index, job in enumerate(jobs))
    outcomes: dict[int, Outcome] = {}
    try:
        for _ in range(min(n_jobs or cores(), len(jobs))):
            workers.append(_Worker())
        while len(outcomes) < len(jobs):
            for worker in workers:
                if worker.attempt is None and waiting:
                    worker.give(waiting.popleft())
            for worker in _ready(workers):
                outcome = worker.listen(progress)
                if not worker.alive:
                    workers[workers.index(worker)] = _Worker()
                    outcome = _after_death(worker, waiting)
                if outcome is not None:
                    outcomes[outcome[0]] = outcome[1]
                    progress.finish(outcome[1])
            if len(outcomes) == len(jobs) and (further := more()):
                waiting.extend(_Attempt(len(jobs) + place, job) for place, job in enumerate(further))
                jobs += further
                progress.expect(further)
    finally:
        for worker in workers:
            worker.pipe.close()
        for worker in workers:
            worker.end()
    return [outcomes[index] for index in range(len(jobs))]


@dataclass
class _Attempt:
    index: int
    job: Job
    tries: int = 0


@dataclass
class _Worker:
    """The parent's end of a worker process."""

    attempt: _Attempt | None = None
    alive: bool = True
    pipe: Connection = field(init=False)
    process: SpawnProcess = field(init=False)

    def __post_init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(theirs, os.getpid()), daemon=True)
        with _environment(_ENVIRONMENT):
            self.process.start()
        theirs.close()

    def give(self, attempt: _Attempt) -> None:
        attempt.tries += 1
        self.attempt = attempt
        try:
            self.pipe.send(attempt.job)
        except OSError:
            self.alive = False

    def listen(self, progress: Progress) -> tuple[int, Outcome] | None:
        """Read one message, if the worker still lives."""
        attempt = self.attempt
        try:
            kind, *content = self.pipe.recv()
        except (EOFError, OSError):
            self.alive = False
            return None
        assert attempt is not None
        if kind == "progress":
            progress.update(attempt.job, *content)
            return None
        self.attempt = None
        return attempt.index, Outcome(attempt.job, content[0])

    def end(self) -> None:
        """An idle worker ends by itself when its pipe closes; one that is at work is stopped."""
        self.pipe.close()
        if self.attempt is None:
            self.process.join(_SECONDS_TO_END)
        self.process.kill()
        self.process.join()


def _ready(workers: Sequence[_Worker]) -> list[_Worker]:
    """Workers that have said something or have died."""
    dead = [worker for worker in workers if not worker.alive]
    if dead:
        return dead
    heard = wait([worker.pipe for worker in workers])
    return [worker for worker in workers if worker.pipe in heard]


def _after_death(worker: _Worker, waiting: deque[_Attempt]) -> tuple[int, Outcome] | None:
    """Try the job of a dead worker again, or give it up."""
    worker.end()
    attempt, code = worker.attempt, worker.process.exitcode
    if attempt is None:
        return None
    if attempt.tries < _TRIES:
        log.warning("The worker at %s died (exit code %s): trying again.", attempt.job.name, code)
        waiting.appendleft(attempt)
        return None
    reason = f"its worker process died {_TRIES} times (exit code {code}): killed from outside, or out of memory"
    return attempt.index, Outcome(attempt.job, reason)


def _work(pipe: Connection, parent: int) -> None:
    """Main function of a worker process."""
    die_with_parent(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Finalize(None, os._exit, (0,), exitpriority=-100)  # Last of all: unloading torch takes a second.
    import torch

    torch.set_num_threads(1)

    def report(share: float, note: str = "") -> None:
        pipe.send(("progress", share, note))

    while True:
        try:
            job: Job = pipe.recv()
        except (EOFError, OSError):
            return
        pipe.send(("done", _attempted(job, report)))


def _attempted(job: Job, report: Report) -> str | None:
    """Do a job; the reason in one line if it fails."""
    try:
        if job.lock is None:
            job.function(*job.arguments, report=report)
        else:
            with held(job.lock, job.name):
                job.function(*job.arguments, report=report)
    except OntogenyError as error:
        return " ".join(str(error).split())
    except Exception as error:
        log.error("%s failed:\n%s", job.name, traceback.format_exc())
        return " ".join(f"{type(error).__name__}: {error}".split())
    return None


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Environment of processes started in this block."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value

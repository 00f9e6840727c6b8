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
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from multiprocessing.util import Finalize

from ontogeny.execution.devices import visible_gpus, worker_environments
from ontogeny.execution.jobs import ONE_THREAD, Attempt, Job, More, Outcome, Progress, attempted, cores
from ontogeny.execution.lifeline import die_with_parent

log = logging.getLogger(__name__)

_TRIES = 2
_SECONDS_TO_END = 5.0


@dataclass(frozen=True)
class LocalExecutor:
    """Worker processes on this machine."""

    n_jobs: int | None = None
    """None: one a core; on GPUs, one a GPU."""
    device: str = "cpu"

    def run(self, jobs: Sequence[Job], progress: Progress, more: More = tuple) -> list[Outcome]:
        """Run all jobs (`Executor.run`)."""
        gpus = visible_gpus() if self.device == "cuda" else ()
        return run_jobs(jobs, self.n_jobs, progress, more, worker_environments(self.device, self.n_jobs, gpus))


def run_jobs(
    jobs: Sequence[Job],
    n_jobs: int | None,
    progress: Progress,
    more: More = tuple,
    environments: Sequence[Mapping[str, str]] | None = None,
) -> list[Outcome]:
    """Run all jobs on at most `n_jobs` workers (none: one a core); see `Executor.run`.

    Args:
        jobs: the first ones first.
        n_jobs: workers; with `environments` there are as many as these.
        progress: who is told.
        more: gives further jobs when all are done.
        environments: what each worker finds in its environment beside `ONE_THREAD`.
    """
    places = list(environments) if environments is not None else [{}] * (n_jobs or cores())
    workers: list[_Worker] = []
    jobs = list(jobs) or list(more())
    waiting = deque(Attempt(index, job) for index, job in enumerate(jobs))
    outcomes: dict[int, Outcome] = {}
    try:
        for place in places[: len(jobs)]:
            workers.append(_Worker(place))
        while len(outcomes) < len(jobs):
            for worker in workers:
                if worker.attempt is None and waiting:
                    worker.give(waiting.popleft())
            for worker in _ready(workers):
                outcome = worker.listen(progress)
                if not worker.alive:
                    workers[workers.index(worker)] = _Worker(worker.environment)
                    outcome = _after_death(worker, waiting)
                if outcome is not None:
                    outcomes[outcome[0]] = outcome[1]
                    progress.finish(outcome[1])
            if len(outcomes) == len(jobs) and (further := more()):
                waiting.extend(Attempt(len(jobs) + place, job) for place, job in enumerate(further))
                jobs += further
                progress.expect(further)
    finally:
        for worker in workers:
            worker.pipe.close()
        for worker in workers:
            worker.end()
    return [outcomes[index] for index in range(len(jobs))]


@dataclass
class _Worker:
    """The parent's end of a worker process."""

    environment: Mapping[str, str]
    attempt: Attempt | None = None
    alive: bool = True
    pipe: Connection = field(init=False)
    process: SpawnProcess = field(init=False)

    def __post_init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(theirs, os.getpid()), daemon=True)
        with _environment({**ONE_THREAD, **self.environment}):
            self.process.start()
        theirs.close()

    def give(self, attempt: Attempt) -> None:
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


def _after_death(worker: _Worker, waiting: deque[Attempt]) -> tuple[int, Outcome] | None:
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
        pipe.send(("done", attempted(job, report)))


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
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

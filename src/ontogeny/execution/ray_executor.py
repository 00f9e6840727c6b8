"""Jobs on a Ray cluster: each a task of one core (and a share of a GPU), tried again when its worker or node dies.

The nodes share a file system with the driver, at the same paths, and have the same sources and the same torch: results
go into the job cache, which a fingerprint made by the driver names. Both are checked by every worker before its first
job. The driver only learns how a job ended, and publishes. When it dies, Ray ends its tasks.
"""

from __future__ import annotations

import hashlib
import logging
import os
import socket
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

from ontogeny.core.errors import OntogenyError
from ontogeny.execution.fingerprints import torch_version
from ontogeny.execution.jobs import ONE_THREAD, Attempt, Job, More, Outcome, Progress, attempted, cores

log = logging.getLogger(__name__)

_TRIES = 4
_SECONDS_BETWEEN_LOOKS = 0.5
_SECONDS_BETWEEN_REPORTS = 1.0
_SECONDS_TO_ANSWER = 5.0
_OBJECT_STORE = 80 * 2**20
"""Bytes of shared memory of a Ray that we start ourselves: results travel through files."""


class UnfitNode(OntogenyError):
    """A worker of the cluster that would give other results, or leave them where nobody finds them."""


@dataclass(frozen=True)
class RayExecutor:
    """Tasks of a Ray cluster."""

    shared: Path
    """A folder that all nodes must see: the one that holds the job cache."""
    address: str | None = None
    """HOST:PORT of the cluster, `auto`, or none: RAY_ADDRESS, or else a Ray of our own on this machine."""
    n_jobs: int | None = None
    """Jobs at once; none: as many as the cluster takes."""
    gpus: float = 0.0
    """Share of a GPU that a job takes."""

    def run(self, jobs: Sequence[Job], progress: Progress, more: More = tuple) -> list[Outcome]:
        """Run all jobs (`Executor.run`).

        Raises:
            OntogenyError: Ray is not installed, the cluster cannot be reached, has not what a job takes, or one of its
                nodes has other sources, another torch, or does not see `shared`.
        """
        jobs = list(jobs) or list(more())
        if not jobs:
            return []
        ray = import_ray()
        with _connected(ray, self.address), _probe(self.shared) as probe:
            _check_resources(ray.cluster_resources(), self.gpus)
            return _Run(ray, self, _Terms(torch_version(), sources_digest(), probe)).work(jobs, progress, more)


@dataclass(frozen=True)
class _Terms:
    """What a worker must have in common with the driver."""

    torch: str
    sources: str
    probe: Path
    """A file that the driver has just written."""


class _Run:
    """One call of `RayExecutor.run`."""

    def __init__(self, ray: Any, executor: RayExecutor, terms: _Terms) -> None:
        self.ray, self.terms = ray, terms
        self.limit = executor.n_jobs or sys.maxsize
        self.task = ray.remote(num_cpus=1, num_gpus=executor.gpus, max_retries=0)(_work)
        here = ray.get_runtime_context().get_node_id()
        pinned = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(here, soft=True)
        self.notes = ray.remote(num_cpus=0, scheduling_strategy=pinned)(_Notes).remote()
        self.running: dict[Any, Attempt] = {}

    def work(self, jobs: list[Job], progress: Progress, more: More) -> list[Outcome]:
        waiting = deque(Attempt(index, job) for index, job in enumerate(jobs))
        outcomes: dict[int, Outcome] = {}
        try:
            while len(outcomes) < len(jobs):
                while waiting and len(self.running) < self.limit:
                    self._start(waiting.popleft())
                for attempt, error, again in self._ended():
                    if again:
                        log.warning("%s: %s Trying again.", attempt.job.name, error)
                        waiting.appendleft(attempt)
                        continue
                    outcomes[attempt.index] = Outcome(attempt.job, error)
                    progress.finish(outcomes[attempt.index])
                self._tell(progress)
                if len(outcomes) == len(jobs) and (further := more()):
                    waiting.extend(Attempt(len(jobs) + place, job) for place, job in enumerate(further))
                    jobs += further
                    progress.expect(further)
        finally:
            for task in self.running:
                self.ray.cancel(task, force=True)
            self.ray.kill(self.notes)
        return [outcomes[index] for index in range(len(jobs))]

    def _start(self, attempt: Attempt) -> None:
        attempt.tries += 1
        task = self.task.options(name=attempt.job.name).remote(attempt.index, attempt.job, self.terms, self.notes)
        self.running[task] = attempt

    def _ended(self) -> Iterator[tuple[Attempt, str | None, bool]]:
        """Attempts that have ended: the error, and whether the job is to be tried again."""
        tasks = list(self.running)
        done, _ = self.ray.wait(tasks, num_returns=len(tasks), timeout=0)
        if not done:
            done, _ = self.ray.wait(tasks, num_returns=1, timeout=_SECONDS_BETWEEN_LOOKS)
        for task in done:
            attempt = self.running.pop(task)
            try:
                yield attempt, self.ray.get(task), False
            except UnfitNode as error:
                raise UnfitNode(_one_line(error)) from None
            except self.ray.exceptions.RayTaskError as error:
                yield attempt, _one_line(error), False
            except self.ray.exceptions.RayError as error:
                died = f"its worker or node died ({type(error).__name__})."
                if attempt.tries < _TRIES:
                    yield attempt, died, True
                else:
                    reason = f"its worker or node died {_TRIES} times: {_one_line(error)}"
                    yield attempt, reason, False

    def _tell(self, progress: Progress) -> None:
        """Pass on what workers have reported; if their notes are lost with a node, the jobs go on without."""
        by_index = {attempt.index: attempt.job for attempt in self.running.values()}
        try:
            notes = self.ray.get(self.notes.take.remote(), timeout=_SECONDS_BETWEEN_LOOKS)
        except self.ray.exceptions.RayError:
            return
        for index, (share, note) in notes.items():
            if index in by_index:
                progress.update(by_index[index], share, note)


class _Notes:
    """Actor: the last thing that each worker reported."""

    def __init__(self) -> None:
        self.told: dict[int, tuple[float, str]] = {}

    def tell(self, index: int, share: float, note: str) -> None:
        self.told[index] = (share, note)

    def take(self) -> Mapping[int, tuple[float, str]]:
        told, self.told = self.told, {}
        return told


def _work(index: int, job: Job, terms: _Terms, notes: Any) -> str | None:
    """Do one job (in a worker, whose environment has `ONE_THREAD`); the reason in one line if it fails."""
    _check_terms(terms)
    told_at = 0.0

    def report(share: float, note: str = "") -> None:
        nonlocal told_at
        if time.monotonic() - told_at >= _SECONDS_BETWEEN_REPORTS:
            told_at = time.monotonic()
            notes.tell.remote(index, share, note)

    return attempted(job, report)


@cache
def _check_terms(terms: _Terms) -> None:
    """Refuse to work on other terms than the driver's.

    Raises:
        UnfitNode: this node's torch or sources are others, or it does not see what the driver wrote.
    """
    node = f"Ray's node {socket.gethostname()}"
    if not terms.probe.exists():
        raise UnfitNode(
            f"{node} does not see {terms.probe.parent}: the project must lie on a file system that all nodes share, "
            "under the same path."
        )
    if torch_version() != terms.torch:
        raise UnfitNode(f"{node} has torch {torch_version()}, the driver {terms.torch}: install the same one there.")
    if sources_digest() != terms.sources:
        raise UnfitNode(f"{node} has other sources of ontogeny than the driver: install the same ones there.")


@cache
def sources_digest() -> str:
    """SHA-256 over the sources of this package."""
    root, digest = Path(__file__).parents[1], hashlib.sha256()
    for file in sorted(root.rglob("*.py")):
        digest.update(f"{file.relative_to(root).as_posix()}\n".encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()


def import_ray() -> Any:
    """The package `ray`.

    Raises:
        OntogenyError: it is not installed.
    """
    try:
        import ray
        import ray.exceptions
        import ray.util.scheduling_strategies
    except ImportError:
        raise OntogenyError(
            "execution.executor is ray, but Ray is not installed. Run pip install -c constraints.txt -e '.[ray]', or "
            "set execution.executor: local."
        ) from None
    return ray


@contextmanager
def _connected(ray: Any, address: str | None) -> Iterator[None]:
    """A connection to the cluster; a Ray that we start ourselves ends with the block."""
    address = address or os.environ.get("RAY_ADDRESS")
    settings = {"runtime_env": {"env_vars": ONE_THREAD}, "logging_level": logging.WARNING}
    if address is None:
        settings |= {"num_cpus": cores(), "object_store_memory": _OBJECT_STORE, "include_dashboard": False}
    try:
        reach(address)
        ray.init(address=address, **settings)
    except (OSError, ValueError, RuntimeError) as error:
        raise OntogenyError(
            f"The Ray cluster {address or 'of this machine'} cannot be used: {_one_line(error)}. Start one "
            "(`ray start --head`), correct execution.ray.address, or set execution.executor: local."
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def reach(address: str | None) -> None:
    """Knock at HOST:PORT first: Ray itself goes on trying for minutes.

    Raises:
        OSError: nobody answers.
    """
    host, _, port = (address or "").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), _SECONDS_TO_ANSWER).close()


@contextmanager
def _probe(shared: Path) -> Iterator[Path]:
    """A file that all nodes must see."""
    shared.mkdir(parents=True, exist_ok=True)
    with NamedTemporaryFile(dir=shared, prefix=".seen-by-all-") as file:
        yield Path(file.name)


def _check_resources(resources: Mapping[str, float], gpus: float) -> None:
    """Refuse to wait for what the cluster does not have."""
    for name, wanted, key in (("CPU", 1.0, ""), ("GPU", gpus, " (execution.ray.gpus_per_job)")):
        if resources.get(name, 0.0) < wanted:
            raise OntogenyError(
                f"A job takes {wanted:g} {name}{key}, but the Ray cluster has {resources.get(name, 0.0):g}. Add a node "
                "that has it, or change execution.device."
            )


def _one_line(error: BaseException) -> str:
    return next((line for line in reversed(str(error).splitlines()) if line.strip()), type(error).__name__).strip()

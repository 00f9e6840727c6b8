"""The executors there are, by name: a new one is a file, and a line here."""

from __future__ import annotations

from pathlib import Path

from ontogeny.execution.jobs import Executor
from ontogeny.execution.pool import LocalExecutor
from ontogeny.execution.ray_executor import RayExecutor
from ontogeny.params import ExecutionParams


def executor_of(settings: ExecutionParams, cache: Path, workers: int | None = None) -> Executor:
    """What the params want jobs to run on.

    Args:
        settings: section `execution`.
        cache: folder that holds the job cache.
        workers: jobs at once; none: as the params say.
    """
    n_jobs = workers or settings.n_jobs
    if settings.executor == "ray":
        gpus = settings.ray.gpus_per_job if settings.device == "cuda" else 0.0
        return RayExecutor(cache, settings.ray.address, n_jobs, gpus)
    return LocalExecutor(n_jobs, settings.device)

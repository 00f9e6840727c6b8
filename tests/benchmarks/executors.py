"""What an executor adds to the jobs themselves: 40 jobs of 2 s on two workers, local and on a Ray cluster.

The jobs sleep, so that only starting them and hearing of their end costs anything. Cluster and workers are warm: each
worker has done a job before the clock starts. Run as a script.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from rich.console import Console

from ontogeny.execution.jobs import Executor, Job, Report
from ontogeny.execution.pool import LocalExecutor
from ontogeny.execution.ray_executor import RayExecutor
from support.listening import Listener

WORKERS = 2
LIMIT = 1.3


def nap(seconds: float, report: Report) -> None:
    """A job that takes so long and no time of the processor."""
    report(0.0, "sleeping")
    time.sleep(seconds)


def seconds_of(executor: Executor, jobs: Sequence[Job]) -> float:
    """From the first of `jobs` to the end of the last, on workers that have done a job before."""
    clock: list[float] = []

    def more() -> Sequence[Job]:
        clock.append(time.perf_counter())
        return jobs if len(clock) == 1 else ()

    warm = [Job(f"warm {worker}", nap, (0.5,)) for worker in range(WORKERS)]
    outcomes = executor.run(warm, Listener(), more)
    assert all(outcome.error is None for outcome in outcomes)
    assert len(outcomes) == len(warm) + len(jobs)
    return clock[1] - clock[0]


def main() -> None:
    """Print a line an executor, and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=40)
    parser.add_argument("--seconds", type=float, default=2.0)
    arguments = parser.parse_args()
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": os.pathsep.join(sys.path)}
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
    cluster = Cluster(True, head_node_args=node | {"include_dashboard": False})
    for _ in range(WORKERS - 1):
        cluster.add_node(**node)
    jobs = [Job(f"nap {number}", nap, (arguments.seconds,)) for number in range(arguments.jobs)]
    with tempfile.TemporaryDirectory() as folder:
        local = seconds_of(LocalExecutor(WORKERS), jobs)
        ray = seconds_of(RayExecutor(Path(folder), cluster.address), jobs)
    cluster.shutdown()
    least = arguments.jobs * arguments.seconds / WORKERS
    console = Console(width=120, highlight=False)
    console.print(f"{arguments.jobs} jobs of {arguments.seconds:g} s on {WORKERS} workers: at least {least:.1f} s")
    console.print(f"local {local:.1f} s, Ray {ray:.1f} s: {ray / local:.2f} x local (limit {LIMIT})")
    raise SystemExit(0 if ray <= LIMIT * local else 1)


if __name__ == "__main__":
    main()

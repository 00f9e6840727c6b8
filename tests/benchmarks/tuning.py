"""What a trial of `ontogeny tune` costs beyond the analysis itself: limit 50 ms, with the scores in the cache.

A trial asks the sampler, evaluates, and tells. Here every evaluation is in the cache, so that reading it is all that is
left of the analysis; what remains is the study's: sampler, journal, locks. Wall time holds the waits for the disk, and
everything else that the machine does; CPU time neither.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from rich.console import Console
from rich.table import Table

from ontogeny.tuning.bench import Bench
from ontogeny.tuning.search import SearchPlan, one_trial, prepare, reseed
from ontogeny.tuning.study import TuningSpec, grid, grid_jobs
from support.tuning import SPACE, place, run_here

LIMIT_MS = 50.0


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=100)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        Console(width=100).print(overhead(Path(folder), options.trials))


def clocks() -> tuple[float, float]:
    """Wall and CPU seconds."""
    return time.perf_counter(), time.process_time()


def overhead(folder: Path, trials: int) -> Table:
    """Milliseconds a trial beyond reading its evaluation, by how many trials there were before."""
    space = SPACE.model_copy(update={"threshold": (0.8,)})
    spec = TuningSpec("bench", "letters", "multi", (place(folder, space=space),))
    run_here(grid_jobs(spec))
    inner, reading = Bench.evaluate, [0.0, 0.0]

    def timed(self: Bench, setting: object) -> object:
        start = clocks()
        found = inner(self, setting)  # type: ignore[arg-type]
        reading[:] = [now - then for now, then in zip(clocks(), start)]
        return found

    Bench.evaluate = timed  # type: ignore[method-assign, assignment]
    study = prepare(spec, SearchPlan(str(folder / "tuning.journal"), trials, 1))
    wall, cpu = [], []
    for _ in range(trials):
        start = clocks()
        reseed(study, 0, 0)
        one_trial(study, spec)
        for times, now, then, read in zip((wall, cpu), clocks(), start, reading):
            times.append(1000 * (now - then - read))
    table = Table(title=f"A trial beyond its analysis, {len(grid(space))} settings, journal file")
    for heading in ("trials before", "wall: median ms", "largest ms", "CPU: median ms", "limit ms", ""):
        table.add_column(heading, justify="right")
    step = max(1, trials // 4)
    for first in range(0, trials, step):
        part = wall[first : first + step]
        median, busy = statistics.median(part), statistics.median(cpu[first : first + step])
        verdict = "ok" if median <= LIMIT_MS else "over"
        table.add_row(f"{first}+", f"{median:.1f}", f"{max(part):.1f}", f"{busy:.1f}", f"{LIMIT_MS:.0f}", verdict)
    return table


if __name__ == "__main__":
    main()

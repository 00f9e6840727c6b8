"""What it costs to put a study into MLflow, and to start the command line; wall seconds on this machine.

The study is synthetic, as large as asked for, and is published as `ontogeny publish` does it: a run a checkpoint and
task, with numbers, curve, circuit as picture, page, table and JSON, into a new SQLite file. Limits are for 1,000 runs.
"""

from __future__ import annotations

import argparse
import logging
import math
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[1]))

from rich.console import Console
from rich.table import Table

from ontogeny.stages.publish import publish_study
from ontogeny.stages.study import Study
from ontogeny.tracking import PublishReport
from support.finished import finished
from support.synthetic_study import SCALES, TASKS, member

LIMITS_S = {"pictures to be drawn": 360.0, "pictures cached": 240.0, "again, nothing to add": 20.0}
HELP_LIMIT_S = 1.0
HELP_STARTS = 5
FULL = 1000
USAGES = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000, help="checkpoint runs, about (default 1000)")
    wanted = parser.parse_args().runs
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    logging.disable(logging.INFO)
    table = Table("what", "runs", "seconds", "of the CPU", "limit", "", title="Publishing (limits: 1,000 runs)")
    with tempfile.TemporaryDirectory() as folder:
        study, runs = synthetic(Path(folder), wanted)
        for what, took, report in published(study):
            limit = LIMITS_S[what]
            verdict = "-" if runs < FULL else "ok" if took.wall <= limit * runs / FULL else "over"
            added = f"{report.added:,} added, {report.kept:,} there"
            table.add_row(what, added, f"{took.wall:.1f}", f"{took.cpu:.1f}", f"{limit:.0f}", verdict)
            assert report.complete, report.reason
    starts = [timed(start_help)[0] for _ in range(HELP_STARTS)]
    wall, cpu = (statistics.median(getattr(start, name) for start in starts) for name in Took._fields)
    verdict = "ok" if wall <= HELP_LIMIT_S else "over"
    table.add_row(
        "ontogeny --help", f"median of {HELP_STARTS}", f"{wall:.2f}", f"{cpu:.2f}", f"{HELP_LIMIT_S:.0f}", verdict
    )
    Console(width=110).print(table)


def synthetic(folder: Path, wanted: int) -> tuple[Study, int]:
    """A finished study of about so many checkpoint runs, and how many it has."""
    count = max(2, math.ceil(wanted / (len(SCALES) * len(TASKS))))
    steps = sorted({round(1722 * place / (count - 1)) for place in range(count)})
    records = [member(scale, steps, TASKS) for scale in SCALES]
    return finished(folder, records), len(records) * len(steps) * len(TASKS)


def published(study: Study) -> list[tuple[str, Took, PublishReport]]:
    """Each way of publishing: what, seconds, what it did. A new store each, but for the last."""
    stores = dict(zip(LIMITS_S, ("first", "second", "second")))
    rows = []
    for what, name in stores.items():
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{study.places.project / name / 'mlflow.db'}"
        rows.append((what, *timed(lambda: publish_study(study))))
    assert [report.added > 0 for _, _, report in rows] == [True, True, False]
    return rows


class Took(NamedTuple):
    """Seconds."""

    wall: float
    cpu: float
    """Of this process and those that it started and that have ended: what the work costs on a machine that is busy."""


def timed(work: Callable[[], Any]) -> tuple[Took, Any]:
    """What it took, and the result."""
    wall, cpu = time.perf_counter(), cpu_seconds()
    result = work()
    return Took(time.perf_counter() - wall, cpu_seconds() - cpu), result


def cpu_seconds() -> float:
    """User and system time so far."""
    return sum(usage.ru_utime + usage.ru_stime for usage in map(resource.getrusage, USAGES))


def start_help() -> None:
    """`ontogeny --help` in a process of its own."""
    subprocess.run([sys.executable, "-m", "ontogeny", "--help"], check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main()

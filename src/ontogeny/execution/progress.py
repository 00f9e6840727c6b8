"""How far the jobs are: bars on a terminal, now and then a line in a log."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ontogeny.execution.disk import full_disk, says_full
from ontogeny.execution.jobs import Job, Outcome, Progress

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

log = logging.getLogger(__name__)
_SECONDS_BETWEEN_LINES = 15.0


@contextmanager
def progress_of(title: str, jobs: Sequence[Job]) -> Iterator[Progress]:
    """Show the progress of `jobs` on stderr."""
    if not sys.stderr.isatty():
        yield LogProgress(title, jobs)
        return
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    columns = ("[progress.description]{task.description}", BarColumn(), TextColumn("{task.percentage:3.0f}%"))
    with RichProgress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as bars:
        yield BarProgress(title, jobs, bars)


class _Counting:
    """Share of all work that is done."""

    def __init__(self, title: str, jobs: Sequence[Job]) -> None:
        self.title = title
        self.total = sum(job.weight for job in jobs) or 1.0
        self.count = len(jobs)
        self.ended = 0
        self.shares: dict[str, float] = {}
        self.weights = {job.name: job.weight for job in jobs}

    def expect(self, jobs: Sequence[Job]) -> None:
        """There are further jobs."""
        self.total += sum(job.weight for job in jobs)
        self.count += len(jobs)
        self.weights |= {job.name: job.weight for job in jobs}

    def count_end(self, outcome: Outcome) -> None:
        """A job has ended; one that failed is named.

        Raises:
            OSError: it failed because the disk is full, and so would all others.
        """
        self.ended += 1
        self.shares[outcome.job.name] = 1.0
        if outcome.error is None:
            return
        if says_full(outcome.error):
            raise full_disk()
        log.error("%s: %s failed: %s", self.title, outcome.job.name, outcome.error)

    @property
    def done(self) -> float:
        """Between 0 and 1."""
        return sum(self.weights[name] * share for name, share in self.shares.items()) / self.total


class LogProgress(_Counting):
    """A line every few seconds, and one for each failure."""

    def __init__(self, title: str, jobs: Sequence[Job]) -> None:
        super().__init__(title, jobs)
        self.last = time.monotonic()

    def update(self, job: Job, share: float, note: str) -> None:
        """A job is at `share` of its work."""
        self.shares[job.name] = share
        self._line(f"{job.name}{': ' + note if note else ''}")

    def finish(self, outcome: Outcome) -> None:
        """A job has ended."""
        self.count_end(outcome)
        self._line(f"{outcome.job.name} done")

    def _line(self, note: str) -> None:
        if time.monotonic() - self.last >= _SECONDS_BETWEEN_LINES or self.ended == self.count:
            self.last = time.monotonic()
            log.info("%s: %3.0f %%, %d of %d jobs (%s)", self.title, 100 * self.done, self.ended, self.count, note)


class BarProgress(_Counting):
    """One bar for all, and one for each job that tells how far it is."""

    def __init__(self, title: str, jobs: Sequence[Job], bars: RichProgress) -> None:
        super().__init__(title, jobs)
        self.bars = bars
        self.all = bars.add_task(f"{title} (0/{self.count})", total=1.0)
        self.tasks: dict[str, TaskID] = {}

    def update(self, job: Job, share: float, note: str) -> None:
        """A job is at `share` of its work."""
        self.shares[job.name] = share
        if job.name not in self.tasks:
            self.tasks[job.name] = self.bars.add_task(job.name, total=1.0)
        self.bars.update(self.tasks[job.name], completed=share, description=f"  {job.name} {note}")
        self._advance()

    def finish(self, outcome: Outcome) -> None:
        """A job has ended."""
        if outcome.job.name in self.tasks:
            self.bars.remove_task(self.tasks.pop(outcome.job.name))
        self.count_end(outcome)
        self._advance()

    def _advance(self) -> None:
        self.bars.update(self.all, completed=self.done, description=f"{self.title} ({self.ended}/{self.count})")

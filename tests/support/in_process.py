"""An executor without workers: for tests of what is run, not of where."""

from __future__ import annotations

from collections.abc import Sequence

from ontogeny.execution.jobs import Job, More, Outcome, Progress, attempted


class InProcess:
    """Does every job here, and keeps its name."""

    def __init__(self) -> None:
        self.done: list[str] = []

    def run(self, jobs: Sequence[Job], progress: Progress, more: More = tuple) -> list[Outcome]:
        """Run all jobs (`Executor.run`)."""
        outcomes: list[Outcome] = []
        jobs = list(jobs) or list(more())
        while jobs:
            for job in jobs:
                self.done.append(job.name)
                outcomes.append(Outcome(job, attempted(job, lambda *_: None)))
                progress.finish(outcomes[-1])
            jobs = list(more())
        return outcomes

"""A listener to the progress of jobs."""

from __future__ import annotations

from collections.abc import Sequence

from ontogeny.execution.jobs import Job, Outcome


class Listener:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.notes: list[tuple[str, float, str]] = []
        self.ended: list[str] = []

    def update(self, job: Job, share: float, note: str) -> None:
        self.notes.append((job.name, share, note))

    def finish(self, outcome: Outcome) -> None:
        self.ended.append(outcome.job.name)

    def expect(self, jobs: Sequence[Job]) -> None:
        """Further jobs need no note."""

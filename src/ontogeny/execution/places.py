"""Where a study keeps its things.

The project's own study lives in the project's root. A profile lives in ``.cache/studies/NAME/`` and has its own
params.yaml, dvc.lock and data/; finished jobs, locks and tracked runs are the project's, shared by all studies.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Places:
    """The folders of one study."""

    study: Path
    """Holds params.yaml, dvc.yaml, dvc.lock and data/."""
    project: Path
    """Holds .cache/ and mlruns/."""

    @property
    def data(self) -> Path:
        """DVC outputs."""
        return self.study / "data"

    @property
    def cache(self) -> Path:
        """Finished jobs, training state, locks, profile studies: all can be deleted, at the price of time."""
        return self.project / ".cache"

    @property
    def jobs(self) -> Path:
        """The job cache."""
        return self.cache / "jobs"

    def lock(self, name: str) -> Path:
        """Lock file of this study; other studies may hold a lock of the same name."""
        return self.cache / "locks" / self.label / f"{name}.lock"

    @property
    def label(self) -> str:
        """The profile's name; ``_project`` for the project's own study."""
        return self.study.name if self.is_profile else "_project"

    @property
    def is_profile(self) -> bool:
        """Whether this is not the project's own study."""
        return self.study != self.project

    def profile(self, name: str) -> Places:
        """The study of a profile."""
        return Places(self.cache / "studies" / name, self.project)


def places_at(folder: Path) -> Places:
    """The study that `folder` is the root of."""
    folder = folder.resolve()
    if folder.parent.name == "studies" and folder.parent.parent.name == ".cache":
        return Places(folder, folder.parents[2])
    return Places(folder, folder)

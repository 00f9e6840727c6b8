"""Finished jobs, kept outside DVC's outputs (which DVC deletes before it reruns a stage).

One file a job, ``jobs/AB/FINGERPRINT.safetensors``, written whole or not at all. It also keeps the moment at which the
job was finished, for MLflow's clock: no output of the pipeline holds it.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from ontogeny.core.errors import OntogenyError


class JobCache:
    """Values by fingerprint."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, fingerprint: str) -> Path:
        """File of a job's result."""
        return self.folder / fingerprint[:2] / f"{fingerprint}.safetensors"

    def __contains__(self, fingerprint: str) -> bool:
        return self.path(fingerprint).exists()

    def store(self, fingerprint: str, value: object) -> None:
        """Keep the result of a job that has just finished."""
        from ontogeny.records import pack, write_tensors

        data, tensors = pack(value)
        record = {"value": data, "finished_at": time.time()}
        write_tensors(self.path(fingerprint), tensors, record, flush=False)

    def load(self, kind: Any, fingerprint: str) -> Any:
        """The result of a job, a value of type `kind`, or None if it has not finished.

        A file that cannot be read is removed: that job counts as not finished.
        """
        from ontogeny.records import read_tensors, unpack

        if fingerprint not in self:
            return None
        try:
            tensors, record = read_tensors(self.path(fingerprint))
            return unpack(kind, record["value"], tensors)
        except (OntogenyError, KeyError, TypeError):
            self.path(fingerprint).unlink(missing_ok=True)
            return None

    def finished_at(self, fingerprint: str) -> float | None:
        """Seconds since the epoch at which the job finished, or none if it has not."""
        try:
            with self.path(fingerprint).open("rb") as file:
                header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
                return float(json.loads(header["__metadata__"]["ontogeny"])["finished_at"])
        except (FileNotFoundError, ValueError, KeyError):
            return None

"""What identifies a job: all that its result depends on, and nothing else.

Weights, data set, the settings that matter, the version of the analysis and of torch. Never the number of workers, a
path, a host or the time.
"""

from __future__ import annotations

import hashlib
import json
from functools import cache
from importlib.metadata import version
from pathlib import Path

VERSIONS = {"training": "1", "examination": "1", "tuning": "1", "transfer": "1"}
"""Raised when the same settings give other results; those of the analyses are in `ontogeny.analysis`. A test holds all
of them against the sources."""


def fingerprint(**facts: object) -> str:
    """SHA-256 over the facts as canonical JSON, first 32 hex digits."""
    text = json.dumps(facts, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


@cache
def torch_version() -> str:
    """Version of torch without its build (``+cpu``), read without importing it."""
    return version("torch").split("+")[0]


@cache
def sources(*packages: str) -> str:
    """Digest of some of our own packages: for what is kept as long as the code that made it is the same."""
    digest, root = hashlib.sha256(), Path(__file__).parents[1]
    for path in sorted(path for package in packages for path in (root / package).rglob("*.py")):
        digest.update(f"{path.relative_to(root)}\n".encode() + path.read_bytes())
    return digest.hexdigest()


def content(folder: Path) -> str:
    """Digest of the files of a folder, by name."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        with path.open("rb") as file:
            own = hashlib.file_digest(file, "sha256").hexdigest()
        digest.update(f"{path.relative_to(folder)} {own}\n".encode())
    return digest.hexdigest()

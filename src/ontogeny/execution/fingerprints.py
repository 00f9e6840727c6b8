"""What identifies a job: all that its result depends on, and nothing else.

Weights, data set, the settings that matter, the version of the analysis and of torch. Never the number of workers, a
path, a host or the time.
"""

from __future__ import annotations

import hashlib
import json
from functools import cache
from importlib.metadata import version

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

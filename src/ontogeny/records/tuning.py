"""The record of a study over settings on disk: one JSON file, and the recommendation in words of its own."""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ontogeny.core.errors import OntogenyError
from ontogeny.core.tuning import Recommendation, TuningRecord
from ontogeny.records.files import read_json, write_json
from ontogeny.records.values import pack, unpack

RECORD = "study.json"
RECOMMENDED = "recommended.json"
_SCHEMA = 1


def write_tuning(folder: Path, record: TuningRecord) -> None:
    """Write `record`; seconds are left out, so that the same trials give the same bytes."""
    trials = tuple(
        replace(t, evaluations={name: replace(e, seconds=math.nan) for name, e in t.evaluations.items()})
        for t in record.trials
    )
    write_json(folder / RECORD, {"schema": _SCHEMA, "study": pack(replace(record, trials=trials))[0]})
    write_json(folder / RECOMMENDED, recommended_json(record))


def read_tuning(folder: Path) -> TuningRecord:
    """Inverse of `write_tuning`, without the seconds.

    Raises:
        OntogenyError: there is none, or another version wrote it.
    """
    data = read_json(folder / RECORD)
    if data.get("schema") != _SCHEMA:
        raise OntogenyError(
            f"{folder / RECORD} has schema {data.get('schema')!r}, this version reads {_SCHEMA}: run the study again."
        )
    record: TuningRecord = unpack(TuningRecord, data["study"], {})
    return record


def recommended_json(record: TuningRecord) -> dict[str, Any]:
    """What to use and why, as plain JSON."""
    return {
        "study": record.name,
        "task": record.task,
        "target": record.target,
        "checkpoints": {c.name: c.status if not c.reason else f"{c.status}: {c.reason}" for c in record.checkpoints},
        "recommended": _recommendation(record.recommended),
        "adoptable": _recommendation(record.adoptable),
    }


def _recommendation(found: Recommendation) -> dict[str, Any]:
    numbers = ("edges", "passes", "faithfulness", "held_out")
    return {
        "setting": None if found.setting is None else asdict(found.setting),
        "reason": found.reason,
        "confirmed": [pack(c)[0] for c in found.confirmed],
    } | {name: pack(getattr(found, name))[0] for name in numbers}

"""Studies over settings on disk."""

import dataclasses
import hashlib
import math
import subprocess
import sys
from pathlib import Path

import pytest

from ontogeny.core.errors import OntogenyError
from ontogeny.core.tuning import Recommendation, Trial, TuningRecord
from ontogeny.records.files import read_json, write_json
from ontogeny.records.tuning import read_tuning, write_tuning
from support.tuning import record, trial


def without_seconds(known: TuningRecord) -> str:
    def still(t: Trial) -> Trial:
        return dataclasses.replace(
            t, evaluations={n: dataclasses.replace(e, seconds=math.nan) for n, e in t.evaluations.items()}
        )

    return repr(dataclasses.replace(known, trials=tuple(map(still, known.trials))))


def test_what_was_written_is_read(tmp_path: Path) -> None:
    known = record()
    nan = float("nan")
    none = trial(3, 0.8, {"small-s0@8": (nan, nan)})
    known = dataclasses.replace(known, trials=(*known.trials, none), adoptable=Recommendation(None, "Nothing fits."))
    write_tuning(tmp_path, known)
    assert repr(read_tuning(tmp_path)) == without_seconds(known)
    assert repr(read_tuning(tmp_path)) != repr(known)
    told = read_json(tmp_path / "recommended.json")
    assert told["recommended"]["setting"]["steps"] == 5
    assert told["recommended"]["reason"] == "It is the smallest."
    assert told["adoptable"] == {
        "setting": None, "reason": "Nothing fits.", "confirmed": [], "edges": None, "passes": None,
        "faithfulness": None, "held_out": None,
    }  # fmt: skip


def test_seconds_change_no_byte_and_neither_does_the_process(tmp_path: Path) -> None:
    known = record()
    slow = tuple(
        dataclasses.replace(t, evaluations={n: dataclasses.replace(e, seconds=9.0) for n, e in t.evaluations.items()})
        for t in known.trials
    )
    write_tuning(tmp_path, known)
    before = hashes(tmp_path)
    write_tuning(tmp_path, dataclasses.replace(known, trials=slow))
    assert hashes(tmp_path) == before
    code = (
        "import sys; from pathlib import Path; from support.tuning import record\n"
        "from ontogeny.records.tuning import write_tuning; write_tuning(Path(sys.argv[1]), record())"
    )
    tests = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "other")], cwd=tests, check=True)
    assert hashes(tmp_path / "other") == before


def hashes(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir() if p.is_file()}


def test_records_of_another_version_are_refused(tmp_path: Path) -> None:
    write_tuning(tmp_path, record())
    data = read_json(tmp_path / "study.json")
    write_json(tmp_path / "study.json", data | {"schema": 99})
    with pytest.raises(OntogenyError, match="schema 99, this version reads 1"):
        read_tuning(tmp_path)
    with pytest.raises(OntogenyError, match="does not exist"):
        read_tuning(tmp_path / "nowhere")

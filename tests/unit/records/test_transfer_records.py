"""Transfers on disk: back as they were, and the same bytes in every process."""

import dataclasses
import math
import subprocess
import sys
from pathlib import Path

import pytest

from ontogeny.core.errors import OntogenyError
from ontogeny.core.transfer import HeadAblation, HeadMatch, Transfer
from ontogeny.records import TransferRecord, read_transfer, write_transfer

NAN = math.nan
RECORD = TransferRecord(
    "ladder",
    "small-s0",
    (8, 16),
    (
        Transfer("ioi", 16, "small-s0", 8, "own", "measured", 12, 1.5, 0.75, 0.5, 0.25),
        Transfer("ioi", 8, "small-s1", 8, "matched", "no circuit at step 8: not_learned", None, NAN, NAN, NAN, NAN),
    ),
    (
        HeadAblation("ioi", "induction", 16, "measured", "", ((5, 2), (0, 11)), 0.5, 0.1, 100, 143, 0.2, 0.4, 0.97),
        HeadAblation("ioi", "successor", 16, "undefined", "No head holds the role.", (), NAN, NAN, 0, 0, NAN, NAN, NAN),
    ),
    (HeadMatch(16, "small-s1", 1, 0, 2, 0.5),),
)


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    write_transfer(tmp_path, RECORD)
    assert repr(read_transfer(tmp_path)) == repr(RECORD)
    empty = TransferRecord("ladder", "small-s0", (), (), (), ())
    write_transfer(tmp_path, empty)
    assert read_transfer(tmp_path) == empty


def test_two_processes_write_the_same_bytes(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from ontogeny.records import write_transfer\n"
        "from unit_records import RECORD\nwrite_transfer(Path(sys.argv[1]), RECORD)"
    )
    here = tmp_path / "here"
    write_transfer(here, RECORD)
    module = tmp_path / "unit_records.py"
    module.write_text(Path(__file__).read_text())
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "there")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    files = [{path.name: path.read_bytes() for path in folder.iterdir()} for folder in (here, tmp_path / "there")]
    assert files[0] == files[1]
    assert len(files[0]) == 4


def test_another_schema_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OntogenyError, match="does not exist"):
        read_transfer(tmp_path)
    write_transfer(tmp_path, dataclasses.replace(RECORD, transfers=()))
    file = tmp_path / "transfer.json"
    file.write_text(file.read_text().replace('"schema": 1', '"schema": 99'))
    with pytest.raises(OntogenyError, match="schema 99, this version reads 1"):
        read_transfer(tmp_path)
